-- The same for an index too large for native tables.
CREATE VIEW stored."predictions/$model" AS SELECT * FROM read_parquet($predictions);
CREATE VIEW stored."image_evidence/$model" AS SELECT * FROM read_parquet($image_evidence);
