-- One row per visual word and class: the mean evidence of the word's patches.
SELECT '$model' AS model, e.word, c.name AS class, e.class_id, e.mean_logit
FROM $word_evidence AS e
JOIN classes AS c ON c.class_id = e.class_id
