"""Short-video classification: a clip in, classes with probabilities out. May import `common`, never `vqa`.

Nothing is here yet but the room: decoding, sampling, augmentation, models and prediction of clips belong here.
"""
