-- One row per patch: what the linear layer sees of it.
SELECT '$model' AS model, f.patch_id, f.patch_id // $patches AS image_id,
       ((f.patch_id % $patches) // $cols)::INTEGER AS "row", ((f.patch_id % $patches) % $cols)::INTEGER AS col,
       (((f.patch_id % $patches) % $cols) * $stride)::INTEGER AS x0,
       (((f.patch_id % $patches) // $cols) * $stride)::INTEGER AS y0,
       (((f.patch_id % $patches) % $cols) * $stride + $receptive_field)::INTEGER AS x1,
       (((f.patch_id % $patches) // $cols) * $stride + $receptive_field)::INTEGER AS y1,
       i.label, i.label_name, p.predicted, f.feature
FROM $features AS f
JOIN images AS i ON i.image_id = f.patch_id // $patches
JOIN $predictions AS p ON p.image_id = i.image_id
