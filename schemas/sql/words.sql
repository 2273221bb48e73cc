-- One row per visual word: how often it is seen, how alike its patches are, and those nearest to its centroid.
SELECT '$model' AS model, w.word, w.patches, w.images, w.similarity, w.typical FROM $words AS w
