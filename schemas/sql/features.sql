-- One row per patch: what the linear layer sees of it.
SELECT '$model' AS model, f.patch_id, f.patch_id // $patches AS image_id,
       ((f.patch_id % $patches) // $cols)::INTEGER AS "row", ((f.patch_id % $patches) % $cols)::INTEGER AS col,
       greatest(((f.patch_id % $patches) % $cols) * $stride + $offset, 0)::INTEGER AS x0,
       greatest(((f.patch_id % $patches) // $cols) * $stride + $offset, 0)::INTEGER AS y0,
       least(((f.patch_id % $patches) % $cols) * $stride + $offset + $receptive_field, $width)::INTEGER AS x1,
       least(((f.patch_id % $patches) // $cols) * $stride + $offset + $receptive_field, $height)::INTEGER AS y1,
       i.label, i.label_name, p.predicted, f.feature
FROM $features AS f
JOIN images AS i ON i.image_id = f.patch_id // $patches
JOIN $predictions AS p ON p.image_id = i.image_id
