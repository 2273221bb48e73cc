-- One row per image and model; `correct`: the predicted class is the label. `logits`: one per class, in class_id order.
SELECT '$model' AS model, p.image_id, i.path, i.label, i.label_name, i.label = p.predicted AS correct,
       p.predicted, c.name AS predicted_name, p.probability, p.top5, p.logits
FROM $predictions AS p
JOIN images AS i ON i.image_id = p.image_id
JOIN classes AS c ON c.class_id = p.predicted
