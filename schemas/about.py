"""What the tables, views and macros of a catalog are, column by column, in words for people who write SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PLACE = {
    "patch_id": "The patch: image_id × patches of an image + row × cols + col, within the model.",
    "image_id": "The image.",
    "row": "The patch's row in the grid, from the top.",
    "col": "The patch's column in the grid, from the left.",
    "x0": "Left end of what the patch sees, in pixels of the model's input.",
    "y0": "Its upper end.",
    "x1": "Its right end, which is excluded.",
    "y1": "Its lower end, which is excluded.",
}
_IMAGE = {
    "label": "The image's label, a class_id; NULL where it has none.",
    "label_name": "The label's name.",
    "predicted": "The class that the model predicts, a class_id.",
}
_MODEL = {"model": "The model's name."}
_CLASS = {"class": "The class whose evidence the row has.", "class_id": "The class's id."}
_CORRECT = {"correct": "Whether the image's label is the row's class; NULL without a label."}
_WORD = {"word": "The visual word's number."}


@dataclass(frozen=True)
class About:
    """A table, view or macro.

    Attributes:
        about: what its rows are, in a sentence.
        columns: what each column is, in the order of the columns.
        call: of a macro, how it is called; `{a}` and `{b}` stand for classes, `{image}` for an image.
    """

    about: str
    columns: Mapping[str, str]
    call: str | None = None


RELATIONS: Mapping[str, About] = {
    "classes": About(
        "One row per class.",
        {
            "class_id": "The class's id: its place in the order of the logits.",
            "wnid": "Its WordNet id, where it has one.",
            "name": "Its name.",
        },
    ),
    "models": About(
        "One row per model.",
        {
            **_MODEL,
            "architecture": "Which BagNet it is.",
            "width": "Of its layers, relative to the published model.",
            "parameters": "How many numbers it has learned.",
            "feature_size": "Numbers in a patch's feature.",
            "receptive_field": "Side of a patch in pixels of the input.",
            "stride": "Pixels from one patch to the next.",
            "rows": "Rows of the patch grid.",
            "cols": "Columns of the patch grid.",
            "precision": "What its features were computed in.",
            "keep": "What the index keeps of it: features, evidence or summary.",
            "weights_sha256": "SHA-256 of its weights.",
        },
    ),
    "images": About(
        "One row per image.",
        {
            "image_id": "The image's id: its place in the listing of the source.",
            "path": "Its file, relative to the source.",
            "path_bytes": "The path's bytes, where they are not UTF-8.",
            "label": "Its label, a class_id; NULL where it has none.",
            "label_name": "The label's name.",
            "width": "Pixels of the file across, after EXIF rotation.",
            "height": "Pixels of the file down, after EXIF rotation.",
            "bytes": "Size of the file.",
            "sha256": "SHA-256 of the file.",
            "resized_width": "Pixels across after the resize.",
            "resized_height": "Pixels down after the resize.",
            "crop_left": "Where the model's input begins in the resized picture, from the left.",
            "crop_top": "Where it begins from the top.",
            "original_label": "The label that it was indexed with, before `bagindex relabel`.",
        },
    ),
    "rejects": About(
        "One row per file that could not be indexed.",
        {
            "image_id": "Its place in the listing of the source, which no image takes.",
            "path": "The file, relative to the source.",
            "path_bytes": "The path's bytes, where they are not UTF-8.",
            "bytes": "Size of the file when it was listed.",
            "code": "Why, as a word for programs.",
            "message": "Why, as words for people.",
        },
    ),
    "predictions": About(
        "One row per image and model: what the model predicts.",
        {
            **_MODEL,
            "image_id": "The image.",
            "path": "Its file, relative to the source.",
            "label": _IMAGE["label"],
            "label_name": _IMAGE["label_name"],
            "correct": "Whether the prediction is the label; NULL without a label.",
            "predicted": _IMAGE["predicted"],
            "predicted_name": "The predicted class's name.",
            "probability": "The softmax of the logits at the predicted class.",
            "top5": "The five classes with the largest logits, class_ids, largest first.",
            "logits": "The image's logits by class: that of class_id c is logits[c + 1], since SQL counts from 1.",
        },
    ),
    "image_evidence": About(
        "One row per class and image: the strongest patch, and the mean, which is the image's logit.",
        {
            **_MODEL,
            **_CLASS,
            "image_id": "The image.",
            "patch_id": "The image's patch with most evidence for the class.",
            **{name: text for name, text in _PLACE.items() if name not in ("patch_id", "image_id")},
            "label": _IMAGE["label"],
            "label_name": _IMAGE["label_name"],
            **_CORRECT,
            "predicted": _IMAGE["predicted"],
            "max_logit": "That patch's logit for the class.",
            "mean_logit": "The mean of all patches' logits for the class: the image's logit.",
        },
    ),
    "evidence": About(
        "One row per class and patch: the patch's logit for the class.",
        {
            **_MODEL,
            **_CLASS,
            **_PLACE,
            "label": _IMAGE["label"],
            "label_name": _IMAGE["label_name"],
            **_CORRECT,
            "predicted": _IMAGE["predicted"],
            "logit": "The patch's evidence for the class; the mean over an image's patches is the image's logit.",
        },
    ),
    "features": About(
        "One row per patch: what the linear layer sees of it.",
        {**_MODEL, **_PLACE, **_IMAGE, "feature": "The patch's feature."},
    ),
    "pixels": About(
        "One row per image: the model's input.",
        {"image_id": "The image.", "pixels": "The input before normalisation: uint8, height × width × RGB."},
    ),
    "words": About(
        "One row per visual word: a kind of patch that comes again and again.",
        {
            **_MODEL,
            **_WORD,
            "patches": "How many patches are it.",
            "images": "How many images have it.",
            "similarity": "The mean cosine between its patches' features and their centroid.",
            "typical": "The patches nearest to the centroid, patch_ids, each of another image.",
        },
    ),
    "word_evidence": About(
        "One row per visual word and class: what the word says of the class.",
        {**_MODEL, **_WORD, **_CLASS, "mean_logit": "The mean evidence of the word's patches for the class."},
    ),
    "patch_words": About(
        "One row per patch: the visual word that it is.",
        {**_MODEL, **_PLACE, **_IMAGE, **_WORD},
    ),
    "evidence_of": About(
        "The evidence of all patches for one class.",
        {
            **_MODEL,
            **_CLASS,
            **_PLACE,
            "label": _IMAGE["label"],
            "label_name": _IMAGE["label_name"],
            **_CORRECT,
            "predicted": _IMAGE["predicted"],
            "logit": "The patch's evidence for the class.",
        },
        "evidence_of({a})",
    ),
    "margin": About(
        "How much more each patch says for one class than for another.",
        {
            **_MODEL,
            **_PLACE,
            **_IMAGE,
            "logit_a": "The patch's evidence for the first class.",
            "logit_b": "Its evidence for the second.",
            "margin": "The first minus the second.",
            "share": "Of the margins of all patches of the image.",
        },
        "margin({a}, {b})",
    ),
    "confusions": About(
        "What the model takes for what, the most frequent first.",
        {
            **_MODEL,
            "label": "The images' label, a class_id.",
            "label_name": "The label's name.",
            "predicted": "What they are taken for, a class_id.",
            "predicted_name": "Its name.",
            "images": "How many images.",
            "share_of_label": "Of the images with the label.",
            "share_of_wrong": "Of all images that the model gets wrong.",
        },
        "confusions()",
    ),
    "words_of": About(
        "A class's logit, word by word: the contributions add up to the mean logit of the images.",
        {
            **_MODEL,
            **_WORD,
            "patches": "How many patches are the word.",
            "images": "How many images have it.",
            "right_patches": "How many patches of images of the class are the word.",
            "right_share": "Of all patches of these images.",
            "right_mean": "Their mean evidence for the class.",
            "right_contribution": "Share × mean: what the word adds to these images' mean logit.",
            "wrong_patches": "How many patches of labelled images of other classes are the word.",
            "wrong_share": "Of all patches of these images.",
            "wrong_mean": "Their mean evidence for the class.",
            "wrong_contribution": "Share × mean, of these images.",
        },
        "words_of({a})",
    ),
    "image_words": About(
        "An image's logits, word by word.",
        {
            **_MODEL,
            **_WORD,
            **_CLASS,
            "patches": "How many patches of the image are the word.",
            "mean_logit": "Their mean evidence for the class.",
            "contribution": "What the word adds to the image's logit for the class.",
        },
        "image_words({image})",
    ),
}
"""By name; macros that give a value, and no table, are not among them."""
