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
    SELECT i.image_id, i.path, i.path_bytes, i.label, c.name AS label_name, i.width, i.height, i.bytes, i.sha256,
           i.resized_width, i.resized_height, i.crop_left, i.crop_top
    FROM read_parquet($images) AS i LEFT JOIN classes AS c ON c.class_id = i.label
    ORDER BY i.image_id;
CREATE TABLE rejects AS SELECT * FROM read_parquet($rejects) ORDER BY image_id;
CREATE TABLE stored.state AS SELECT '$state' AS digest;
