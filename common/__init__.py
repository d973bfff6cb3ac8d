"""What both tasks share: encoders, features, training, data safety, options and reporting.

Nothing in here knows of questions or of clips; a test keeps `common` from importing `vqa` or `video`.
"""
