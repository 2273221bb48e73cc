-- A model's visual words as native tables, without the centroids, and where those of each patch are.
INSERT INTO stored.words VALUES ('$model', '$folder');
CREATE TABLE stored."words/$model" AS
    SELECT word, patches, images, similarity, typical FROM read_parquet('$folder/words.parquet') ORDER BY word;
CREATE TABLE stored."word_evidence/$model" AS
    SELECT * FROM read_parquet('$folder/word_evidence.parquet') ORDER BY class_id, word;
