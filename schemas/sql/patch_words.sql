-- One row per patch: the visual word that it is.
SELECT '$model' AS model, w.patch_id, w.patch_id // $patches AS image_id,
       ((w.patch_id % $patches) // $cols)::INTEGER AS "row", ((w.patch_id % $patches) % $cols)::INTEGER AS col,
       greatest(((w.patch_id % $patches) % $cols) * $stride + $offset, 0)::INTEGER AS x0,
       greatest(((w.patch_id % $patches) // $cols) * $stride + $offset, 0)::INTEGER AS y0,
       least(((w.patch_id % $patches) % $cols) * $stride + $offset + $receptive_field, $width)::INTEGER AS x1,
       least(((w.patch_id % $patches) // $cols) * $stride + $offset + $receptive_field, $height)::INTEGER AS y1,
       i.label, i.label_name, p.predicted, w.word
FROM $patch_words AS w
JOIN images AS i ON i.image_id = w.patch_id // $patches
JOIN $predictions AS p ON p.image_id = i.image_id
