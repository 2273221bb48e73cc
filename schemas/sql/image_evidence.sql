-- One row per class and image: the strongest patch and the mean, which is the image's logit.
SELECT '$model' AS model, c.name AS class, e.class_id, e.image_id, e.patch_id,
       ((e.patch_id % $patches) // $cols)::INTEGER AS "row", ((e.patch_id % $patches) % $cols)::INTEGER AS col,
       (((e.patch_id % $patches) % $cols) * $stride)::INTEGER AS x0,
       (((e.patch_id % $patches) // $cols) * $stride)::INTEGER AS y0,
       (((e.patch_id % $patches) % $cols) * $stride + $receptive_field)::INTEGER AS x1,
       (((e.patch_id % $patches) // $cols) * $stride + $receptive_field)::INTEGER AS y1,
       i.label, i.label_name, i.label = e.class_id AS correct, p.predicted, e.max_logit, e.mean_logit
FROM $image_evidence AS e
JOIN classes AS c ON c.class_id = e.class_id
JOIN images AS i ON i.image_id = e.image_id
JOIN $predictions AS p ON p.image_id = e.image_id
