-- What is asked often, as functions that give tables: over all models, or over one with `model := 'NAME'`. DuckDB puts
-- an argument wherever its bare name stands, so that all columns are named with their tables.
-- A class by its name, else by its wnid or id.
CREATE MACRO class_number(class) AS coalesce(
    (SELECT min(c.class_id) FROM classes AS c WHERE c.name = class::VARCHAR),
    (SELECT min(c.class_id) FROM classes AS c WHERE c.wnid = class::VARCHAR OR c.class_id::VARCHAR = class::VARCHAR),
    error('no class is called ' || coalesce(class::VARCHAR, 'NULL') || ': FROM classes shows them all'));

-- A model by its name; NULL, for all, stays.
CREATE MACRO model_name(model) AS CASE
    WHEN model IS NULL OR model IN (SELECT m.model FROM models AS m) THEN model
    ELSE error('this index has no model ' || model || ': FROM models shows them all') END;

-- An image by its id.
CREATE MACRO image_number(image) AS CASE
    WHEN image IN (SELECT i.image_id FROM images AS i) THEN image
    ELSE error('there is no image ' || coalesce(image::VARCHAR, 'NULL') || ': FROM images shows them all') END;

-- IN lets DuckDB read the rows of that class only; = would not.
CREATE MACRO evidence_of(class, model := NULL) AS TABLE
    SELECT e.* FROM evidence AS e
    WHERE e.class_id IN (SELECT class_number(class)) AND (model_name(model) IS NULL OR e.model = model);

CREATE MACRO margin(a, b, model := NULL) AS TABLE
    SELECT m.*, m.margin / nullif(sum(m.margin) OVER (PARTITION BY m.model, m.image_id), 0) AS share
    FROM (
        SELECT e.model, e.patch_id, e.image_id, e."row", e.col, e.x0, e.y0, e.x1, e.y1, e.label, e.label_name,
               e.predicted, e.logit AS logit_a, o.logit AS logit_b, e.logit::DOUBLE - o.logit::DOUBLE AS margin
        FROM evidence AS e JOIN evidence AS o ON o.model = e.model AND o.patch_id = e.patch_id
        WHERE e.class_id IN (SELECT class_number(a)) AND o.class_id IN (SELECT class_number(b))
          AND (model_name(model) IS NULL OR e.model = model)
    ) AS m;

CREATE MACRO confusions(model := NULL) AS TABLE
    SELECT c.model, c.label, c.label_name, c.predicted, c.predicted_name, c.images,
           c.images / l.images AS share_of_label, c.images / sum(c.images) OVER (PARTITION BY c.model) AS share_of_wrong
    FROM (
        SELECT p.model, p.label, p.label_name, p.predicted, p.predicted_name, count(*) AS images
        FROM predictions AS p WHERE NOT p.correct AND (model_name(model) IS NULL OR p.model = model) GROUP BY ALL
    ) AS c
    JOIN (SELECT p.model, p.label, count(*) AS images FROM predictions AS p GROUP BY ALL) AS l
      ON l.model = c.model AND l.label = c.label
    ORDER BY c.images DESC, c.model, c.label, c.predicted;

-- A class's logit, word by word: share × mean = contribution, and these add up to the mean logit of the images.
CREATE MACRO words_of(class, model := NULL) AS TABLE
    SELECT s.model, s.word, v.patches, v.images,
           s.right_patches, s.right_patches / s.all_right AS right_share, s.right_sum / s.right_patches AS right_mean,
           coalesce(s.right_sum, 0) / s.all_right AS right_contribution,
           s.wrong_patches, s.wrong_patches / s.all_wrong AS wrong_share, s.wrong_sum / s.wrong_patches AS wrong_mean,
           coalesce(s.wrong_sum, 0) / s.all_wrong AS wrong_contribution
    FROM (
        SELECT g.*, nullif(sum(g.right_patches) OVER (PARTITION BY g.model), 0) AS all_right,
               nullif(sum(g.wrong_patches) OVER (PARTITION BY g.model), 0) AS all_wrong
        FROM (
            SELECT e.model, w.word,
                   count(*) FILTER (e.correct) AS right_patches, count(*) FILTER (NOT e.correct) AS wrong_patches,
                   sum(e.logit::DOUBLE) FILTER (e.correct) AS right_sum,
                   sum(e.logit::DOUBLE) FILTER (NOT e.correct) AS wrong_sum
            FROM evidence AS e JOIN patch_words AS w ON w.model = e.model AND w.patch_id = e.patch_id
            WHERE e.class_id IN (SELECT class_number(class)) AND (model_name(model) IS NULL OR e.model = model)
            GROUP BY e.model, w.word
        ) AS g
    ) AS s
    JOIN words AS v ON v.model = s.model AND v.word = s.word;

-- The ids of the image's patches let DuckDB read the shard of the image only.
CREATE MACRO image_words(image, model := NULL) AS TABLE
    SELECT e.model, w.word, e.class, e.class_id, count(*) AS patches, sum(e.logit::DOUBLE) / count(*) AS mean_logit,
           sum(e.logit::DOUBLE) / c.cells AS contribution
    FROM (
        SELECT m.model, m.rows * m.cols AS cells,
               unnest(range(image_number(image) * m.rows * m.cols, (image_number(image) + 1) * m.rows * m.cols)) AS patch_id
        FROM models AS m WHERE model_name(model) IS NULL OR m.model = model
    ) AS c
    JOIN evidence AS e ON e.model = c.model AND e.patch_id = c.patch_id
    JOIN patch_words AS w ON w.model = c.model AND w.patch_id = c.patch_id
    GROUP BY e.model, w.word, e.class, e.class_id, c.cells;
