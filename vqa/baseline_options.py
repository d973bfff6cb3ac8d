"""The options of `scripts/baseline_vqa.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports torch or scikit-learn. What they do is in `vqa/baselines.py`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from common.columns import check_columns
from common.config import options
from common.errors import UserError
from common.options import Count, Positive, Seed


@options
class BaselineOptions:
    """Answer without learning, or from the question's words alone: the rows that every VQA table needs.

    Splits, spelling and answers are those of scripts/train_vqa.py; no photo is looked at. It leaves a run directory.

    examples:
      python scripts/baseline_vqa.py --baseline majority --data FOLDER
      python scripts/baseline_vqa.py --baseline tfidf_svm --data FOLDER --segmentation syllable
      python scripts/baseline_vqa.py --baseline lookup --data FOLDER --allow-leaky-split --fit-validation
    """

    # What loading and opening a run ask of a training run's options, and what is the same in every baseline.
    inputs: ClassVar[str] = "question"
    on_bad_image: ClassVar[str] = "fail"
    resume: ClassVar[bool] = False

    baseline: Literal["majority", "majority_per_type", "lookup", "tfidf_svm"]
    """the commonest answer; of each type; to exactly this question, else of its type; a linear SVM over the words"""
    config: str | None = None
    """YAML file of options; the command line overrides it"""
    output: str | None = None
    """run directory to write; default runs/NAME, numbered if that exists"""
    overwrite: bool = False
    """replace the run in --output"""
    seed: Seed = 0
    """seed of the SVM's solver; the other baselines have nothing random in them"""
    test: bool = True
    """score the test split; --no-test leaves it unopened"""
    data: str | None = None
    """folder, file or Hub id; without it, the embedded data set"""
    images: str | None = None
    """folder the photos are in, which only tell groups apart; default the folder of --data"""
    columns: tuple[str, ...] = ()
    """other column names, as OURS=THEIRS: image question answer answers type group id"""
    cache: str | None = None
    """folder of the embedded set; default $HOIANH_CACHE or ~/.cache/hoianh"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """part of train that becomes validation (whole groups, stratified) where the source has none"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """part that becomes test where the source is a single file"""
    split_seed: Seed = 0
    """seed of those splits"""
    allow_leaky_split: bool = False
    """go on, and say so in the report, when groups, photos or rows are in two splits"""
    limit: Count | None = None
    """use only the first so many photos of each file: a smoke test"""
    fit_validation: bool = False
    """answer test after fitting on train and validation together, as papers do that have no validation split"""
    segmentation: Literal["pyvi", "syllable"] = "pyvi"
    """tfidf_svm: what a word is; the other baselines know whole questions only"""
    c: Positive | None = None
    """tfidf_svm: inverse of the regularisation; default the best on validation of 0.1, 0.3, 1, 3"""
    ngrams: Count | None = None
    """tfidf_svm: words in the longest n-gram; default the better on validation of 1 and 2"""

    def __post_init__(self) -> None:
        check_columns(self.columns, "question=cau_hoi")
        for name in ("c", "ngrams"):
            if getattr(self, name) is not None and self.baseline != "tfidf_svm":
                raise UserError(f"--{name} is for tfidf_svm, not for {self.baseline}: leave it out")
