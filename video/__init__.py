"""Short-video classification: a clip in, classes with probabilities out. May import `common`, never `vqa`."""
