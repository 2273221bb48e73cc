-- One row per class and patch. `logit` is the patch's evidence; `correct`: the image's label is the row's class.
SELECT '$model' AS model, c.name AS class, e.class_id, e.patch_id, e.patch_id // $patches AS image_id,
       ((e.patch_id % $patches) // $cols)::INTEGER AS "row", ((e.patch_id % $patches) % $cols)::INTEGER AS col,
       greatest(((e.patch_id % $patches) % $cols) * $stride + $offset, 0)::INTEGER AS x0,
       greatest(((e.patch_id % $patches) // $cols) * $stride + $offset, 0)::INTEGER AS y0,
       least(((e.patch_id % $patches) % $cols) * $stride + $offset + $receptive_field, $width)::INTEGER AS x1,
       least(((e.patch_id % $patches) // $cols) * $stride + $offset + $receptive_field, $height)::INTEGER AS y1,
       i.label, i.label_name, i.label = e.class_id AS correct, p.predicted, e.logit
FROM $evidence AS e
JOIN classes AS c ON c.class_id = e.class_id
JOIN images AS i ON i.image_id = e.patch_id // $patches
JOIN $predictions AS p ON p.image_id = i.image_id
