-- The model's inputs before normalisation: uint8, height × width × RGB.
SELECT image_id, pixels FROM $pixels
