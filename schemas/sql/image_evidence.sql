-- One row per class and image: the strongest patch and the mean, which is the image's logit.
SELECT '$model' AS model, c.name AS class, e.class_id, e.image_id, e.patch_id,
       ((e.patch_id % $patches) // $cols)::INTEGER AS "row", ((e.patch_id % $patches) % $cols)::INTEGER AS col,
       greatest(((e.patch_id % $patches) % $cols) * $stride + $offset, 0)::INTEGER AS x0,
       greatest(((e.patch_id % $patches) // $cols) * $stride + $offset, 0)::INTEGER AS y0,
       least(((e.patch_id % $patches) % $cols) * $stride + $offset + $receptive_field, $width)::INTEGER AS x1,
       least(((e.patch_id % $patches) // $cols) * $stride + $offset + $receptive_field, $height)::INTEGER AS y1,
       i.label, i.label_name, i.label = e.class_id AS correct, p.predicted, e.max_logit, e.mean_logit
FROM $image_evidence AS e
JOIN classes AS c ON c.class_id = e.class_id
JOIN images AS i ON i.image_id = e.image_id
JOIN $predictions AS p ON p.image_id = e.image_id
