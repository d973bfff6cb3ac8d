"""Visual question answering: a photo and a Vietnamese question in, answers with probabilities out.

May import `common`, never `video`.
"""
