"""Drift: whether current images look like those that the model in production was trained on.

Works on arrays and loads neither pandas, scipy nor OpenCV when it is imported, so that the endpoint can use it.

| module | what it holds |
|---|---|
| `image_statistics` | the quantities of one image, or of many |
| `reference` | the quantities of the images of the model in production, and their file |
| `comparison` | two collections compared, quantity by quantity |
"""
