-- One row per patch: the visual word that it is.
SELECT '$model' AS model, w.patch_id, w.patch_id // $patches AS image_id,
       ((w.patch_id % $patches) // $cols)::INTEGER AS "row", ((w.patch_id % $patches) % $cols)::INTEGER AS col,
       (((w.patch_id % $patches) % $cols) * $stride)::INTEGER AS x0,
       (((w.patch_id % $patches) // $cols) * $stride)::INTEGER AS y0,
       (((w.patch_id % $patches) % $cols) * $stride + $receptive_field)::INTEGER AS x1,
       (((w.patch_id % $patches) // $cols) * $stride + $receptive_field)::INTEGER AS y1,
       i.label, i.label_name, p.predicted, w.word
FROM $patch_words AS w
JOIN images AS i ON i.image_id = w.patch_id // $patches
JOIN $predictions AS p ON p.image_id = i.image_id
