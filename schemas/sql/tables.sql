-- The small tables: classes and models from lists of values, images and rejects from Parquet files.
CREATE SCHEMA stored;
CREATE TABLE classes AS
    SELECT class_id::INTEGER AS class_id, wnid::VARCHAR AS wnid, name::VARCHAR AS name
    FROM (VALUES $classes) AS t(class_id, wnid, name) ORDER BY class_id;
CREATE TABLE models AS
    SELECT * FROM (VALUES $models) AS t(
        model, architecture, width, parameters, feature_size, receptive_field, stride, rows, cols, precision, keep,
        weights_sha256);
CREATE TABLE images AS
    WITH labelled AS (
        SELECT i.*, CASE WHEN n.image_id IS NULL THEN i.label ELSE n.label END AS current_label
        FROM read_parquet($images) AS i LEFT JOIN $relabelled AS n ON n.image_id = i.image_id
    )
    SELECT i.image_id, i.path, i.path_bytes, i.current_label AS label, c.name AS label_name, i.width, i.height, i.bytes,
           i.sha256, i.resized_width, i.resized_height, i.crop_left, i.crop_top, i.label AS original_label
    FROM labelled AS i LEFT JOIN classes AS c ON c.class_id = i.current_label
    ORDER BY i.image_id;
-- A file that was rejected may have become an image later, or have been rejected again.
CREATE TABLE rejects AS
    SELECT r.* FROM read_parquet($rejects) AS r
    ANTI JOIN images AS i ON i.path = r.path AND i.path_bytes IS NOT DISTINCT FROM r.path_bytes
    QUALIFY row_number() OVER (PARTITION BY r.path, r.path_bytes ORDER BY r.image_id DESC) = 1
    ORDER BY r.image_id;
CREATE TABLE stored.state AS SELECT '$state' AS digest;
CREATE TABLE stored.files AS SELECT * FROM (VALUES $files) AS t(path, bytes);
CREATE TABLE stored.words(model VARCHAR, folder VARCHAR);
