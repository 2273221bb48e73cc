-- A model's summaries as native tables, sorted so that a class's rows stand together: milliseconds a query.
CREATE TABLE stored."predictions/$model" AS
    SELECT * FROM read_parquet($predictions) ORDER BY image_id;
CREATE TABLE stored."image_evidence/$model" AS
    SELECT * FROM read_parquet($image_evidence) ORDER BY class_id, image_id;
