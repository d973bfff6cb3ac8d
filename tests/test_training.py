"""The shared loop on a small problem: processes, parts of a batch, schedules, stopping, checkpoints, resuming."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.batches import evaluation_batches, plan_epoch, train_batches
from common.checkpoints import heal, load_state, save_state, whole_directory
from common.errors import Interrupted, UserError
from common.optimisation import make_schedule
from common.options import TrainingOptions
from common.progress import Progress, checkpoint_directory
from common.training import evaluate, fit, make_accelerator


class Points:
    """Items of 1 to 3 labelled points each: a linear problem, noisy enough that it is not solved at once."""

    def __init__(self, items: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes = [1 + place % 3 for place in range(items)]
        self.samples = sum(sizes)
        self.points = torch.randn(self.samples, 4, generator=generator)
        noise = 0.5 * torch.randn(self.samples, generator=generator)
        self.labels = (self.points.sum(dim=1) + noise > 0).long()
        self.rows = np.split(np.arange(self.samples), np.cumsum(sizes)[:-1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys):
        rows = torch.from_numpy(np.concatenate([self.rows[item] for item, _ in keys]))
        return {"inputs": {"points": self.points[rows]}, "labels": self.labels[rows], "index": rows}


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, points):
        return SimpleNamespace(logits=self.net(points))


def save(model, directory):
    save_file(model.state_dict(), directory / "model.safetensors")


def train(run, model=None, *, resume=None, train_on=None, **changes) -> tuple[Progress, nn.Module]:
    options = TrainingOptions(**{"epochs": 4, "batch_size": 8, "learning_rate": 0.02} | changes)
    model = model or Net()
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    progress = fit(
        model,
        train=train_on or Points(24, 1),
        validation=Points(9, 2),
        options=options,
        seed=3,
        workers=0,
        accelerator=accelerator,
        run=run,
        save=save,
        resume=resume,
    )
    return progress, model


def test_an_epoch_has_every_item_once_whatever_the_processes():
    source = Points(23, 0)
    for world, accumulation in ((1, 1), (2, 1), (3, 2)):
        seen: list[list[int]] = []
        for rank in range(world):
            steps = train_batches(
                source, batch_size=8, accumulation=accumulation, seed=1, epoch=2, rank=rank, world=world, workers=0
            )
            seen.append([int(row) for step in steps for part in step for row in part["index"]])
        assert sorted(sum(seen, [])) == list(range(source.samples))
    sizes = [len(batch) for batch in plan_epoch(23, 8, seed=1, epoch=2)]
    assert sum(sizes) == 23 and max(sizes) - min(sizes) <= 1
    assert not np.array_equal(plan_epoch(23, 8, seed=1, epoch=2)[0], plan_epoch(23, 8, seed=1, epoch=3)[0])


def test_a_share_without_a_photo_is_refused():
    with pytest.raises(UserError, match="--batch-size 4.*2 process.*3 accumulation"):
        next(train_batches(Points(8, 0), batch_size=4, accumulation=3, seed=0, epoch=1, rank=0, world=2, workers=0))


@pytest.mark.parametrize("world", [1, 2, 5])
def test_evaluation_has_every_sample_once(world):
    source = Points(13, 0)
    rows = [
        int(row)
        for rank in range(world)
        for (batch,) in evaluation_batches(source, batch_size=3, rank=rank, world=world, workers=0)
        for row in batch["index"]
    ]
    assert sorted(rows) == list(range(source.samples))


def test_learns_and_leaves_history_and_checkpoints(tmp_path):
    progress, model = train(tmp_path, epochs=8)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert history == progress.history and [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["validation_accuracy"] > 0.7 and history[-1]["train_loss"] < history[0]["train_loss"]
    best = min(history, key=lambda row: row["validation_loss"])
    assert progress.best_loss == best["validation_loss"]
    weights = load_file(checkpoint_directory(tmp_path, "best_loss") / "model.safetensors")
    again = Net()
    again.load_state_dict(weights)
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    scores = evaluate(again, Points(9, 2), batch_size=4, workers=0, accelerator=accelerator)
    assert scores.mean_loss == pytest.approx(best["validation_loss"], abs=1e-6)
    with pytest.raises(UserError, match="unknown checkpoint 'first'"):
        checkpoint_directory(tmp_path, "first")


def test_several_draws_count_as_their_mean(tmp_path):
    """Two views of each point: as it is, and with its sign and its classes exchanged, read through `columns`."""

    class Exchanged(Points):
        def __getitems__(self, keys):
            batch, draw = super().__getitems__(keys), keys[0][1]
            batch["inputs"]["points"] = batch["inputs"]["points"] * (-1 if draw else 1)
            return batch | {"columns": torch.tensor([1, 0] if draw else [0, 1])}

    model, source = train(tmp_path)[1], Exchanged(9, 2)
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    scores = evaluate(model, source, batch_size=4, workers=0, accelerator=accelerator, draws=2)
    with torch.no_grad():
        plain = model.eval()(source.points).logits.log_softmax(-1)
        other = model(-source.points).logits.log_softmax(-1).flip(-1)
    expected = ((plain + other) / 2).softmax(-1)
    assert (scores.predicted == expected.argmax(-1).numpy()).all()
    np.testing.assert_allclose(scores.probability, expected.amax(-1).numpy(), rtol=1e-5)
    one = evaluate(model, source, batch_size=4, workers=0, accelerator=accelerator)
    np.testing.assert_allclose(one.probability, plain.exp().amax(-1).numpy(), rtol=1e-5)


def test_scores_agree_with_a_plain_forward(tmp_path):
    model, source = Net().eval(), Points(9, 2)
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    scores = evaluate(model, source, batch_size=4, workers=0, accelerator=accelerator)
    logits = model(source.points).logits.double()
    loss = nn.functional.cross_entropy(logits, source.labels, reduction="none")
    np.testing.assert_allclose(scores.loss, loss.detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(scores.predicted, logits.argmax(dim=1).numpy())
    np.testing.assert_array_equal(scores.rank == 1, scores.predicted == scores.gold)


def test_unknown_classes_count_as_wrong_and_have_no_loss():
    source = Points(9, 2)
    source.labels[::2] = -1
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    scores = evaluate(Net(), source, batch_size=4, workers=0, accelerator=accelerator)
    assert np.isnan(scores.loss[::2]).all() and np.isfinite(scores.mean_loss)
    assert scores.accuracy <= 0.5


def test_parts_of_a_batch_change_nothing(tmp_path):
    """A batch worked through in two parts gives the gradient of the whole, though the parts differ in samples."""
    whole, _ = train(tmp_path / "a", Frozen(), accumulation=1)
    parts, _ = train(tmp_path / "b", Frozen(), accumulation=2)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-5)


class Frozen(Net):
    """Without batch norm, the only part that looks at its own batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.Identity()


class Killed(BaseException):
    """As good as SIGKILL: nothing of ours hears it."""


class Mortal(Points):
    """Points whose `last`-th batch never comes."""

    def __init__(self, *arguments, last: int) -> None:
        super().__init__(*arguments)
        self.left = last

    def __getitems__(self, keys):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().__getitems__(keys)


def go_on(run, **options) -> tuple[Progress, nn.Module]:
    last, again = whole_directory(run / "checkpoints" / "last"), Net(dropout=0.3)
    again.load_state_dict(load_file(last / "model.safetensors"))
    return train(run, again, resume=last, **options)


def without_time(history) -> list:
    return [{key: value for key, value in row.items() if key not in ("seconds", "resumed")} for row in history]


@pytest.mark.parametrize("minutes", [0, 1e-9])  # after epochs alone, after every step
@pytest.mark.parametrize("schedule", ["cosine", "plateau", "cosine_restarts"])
@pytest.mark.parametrize(("optimizer", "averaging"), [("adamw", 0.0), ("sgd", 0.0), ("adamw", 0.9)])
def test_resumed_is_bit_for_bit_the_unbroken_run(tmp_path, schedule, optimizer, averaging, minutes):
    options = {"schedule": schedule, "optimizer": optimizer, "restart_every": 2, "weight_averaging": averaging}
    whole, model = train(tmp_path / "whole", Net(dropout=0.3), epochs=5, **options)
    options |= {"checkpoint_minutes": minutes, "epochs": 5}
    run = tmp_path / "broken"
    with pytest.raises(Killed):  # in the third epoch, of three steps each
        train(run, Net(dropout=0.3), train_on=Mortal(24, 1, last=7), **options)
    if minutes:
        with pytest.raises(Killed):  # and again, two epochs and a step later
            go_on(run, train_on=Mortal(24, 1, last=7), **options)
    resumed, again = go_on(run, **options)
    assert without_time(resumed.history) == without_time(whole.history)
    begun = {row["epoch"]: row["resumed"] for row in resumed.history if "resumed" in row}
    assert begun == ({3: [1], 5: [2]} if minutes else {3: [0]})
    assert [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] == resumed.history
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    for name in ("last", "best_loss", "best_accuracy"):
        ours, theirs = (
            load_file(path / "checkpoints" / name / "model.safetensors") for path in (run, tmp_path / "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_an_epoch_that_ended_before_it_was_scored_is_not_trained_again(tmp_path):
    whole, _ = train(tmp_path / "whole", Net(dropout=0.3), epochs=2)

    class Unscored(Points):
        def __getitems__(self, keys):
            raise Killed

    run, options = tmp_path / "broken", TrainingOptions(epochs=2, batch_size=8, learning_rate=0.02)
    options.checkpoint_minutes = 1e-9
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    keywords = {"options": options, "seed": 3, "workers": 0, "accelerator": accelerator, "run": run, "save": save}
    with pytest.raises(Killed):
        fit(Net(dropout=0.3), train=Points(24, 1), validation=Unscored(9, 2), **keywords)
    resumed, _ = go_on(run, epochs=2)
    assert without_time(resumed.history) == without_time(whole.history) and resumed.history[0]["resumed"] == [3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_a_checkpoint_and_says_how_to_go_on(tmp_path, number):
    class Asked(Points):
        left = 5

        def __getitems__(self, keys):
            Asked.left -= 1
            if Asked.left == 0:  # the first step of the second epoch, after three of the first and its validation
                os.kill(os.getpid(), number)
            return super().__getitems__(keys)

    whole, _ = train(tmp_path / "whole", Net(dropout=0.3))
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"in epoch 2 after step 2 of 3; .*--resume --output .*broken"):
        train(tmp_path / "broken", Net(dropout=0.3), train_on=Asked(24, 1))
    assert signal.getsignal(number) is before
    resumed, _ = go_on(tmp_path / "broken")
    assert without_time(resumed.history) == without_time(whole.history) and resumed.history[1]["resumed"] == [2]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path, capsys):
    whole, _ = train(tmp_path / "whole", Net(dropout=0.3))
    run = tmp_path / "broken"
    with pytest.raises(Killed):
        train(run, Net(dropout=0.3), train_on=Mortal(24, 1, last=7))
    weights = run / "checkpoints" / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    heal(run / "checkpoints" / "last")
    said = capsys.readouterr().err
    assert "last is damaged: model.safetensors is not what was written" in said and "the checkpoint before it" in said
    resumed, _ = go_on(run)
    assert without_time(resumed.history) == without_time(whole.history)
    assert resumed.history[1]["resumed"] == [0]  # the first epoch's was the one before
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best_accuracy", "best_loss", "last"]


def test_what_is_saved_is_the_running_mean_of_the_weights(tmp_path):
    _, model = train(tmp_path / "plain", Net(), epochs=1)
    after: list[torch.Tensor] = []  # the weights after each of the three steps

    class Watched(Points):
        def __getitems__(self, keys):
            after.append(averaging.net[0].weight.detach().clone())
            return super().__getitems__(keys)

    averaging = Net()
    train(tmp_path / "averaged", averaging, epochs=1, weight_averaging=0.75, train_on=Watched(24, 1))
    after.append(averaging.net[0].weight.detach())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, averaging.state_dict()[name])  # what is trained does not notice
    saved = load_file(tmp_path / "averaged" / "checkpoints" / "last" / "model.safetensors")
    mean = after[1]  # of before the first step there is nothing in it
    for weights in after[2:]:
        mean = 0.75 * mean + 0.25 * weights
    torch.testing.assert_close(saved["net.0.weight"], mean)


def test_early_stopping_waits_for_patience(tmp_path):
    progress, _ = train(tmp_path, epochs=30, patience=2, min_delta=10.0)
    assert progress.epoch == 3  # the first is always better than nothing, then two that are not better by 10


def test_best_accuracy_rules():
    def figures(epoch, train, validation):
        return {"epoch": epoch, "train_accuracy": train, "validation_accuracy": validation, "validation_loss": 1.0}

    for rule, expected in (("validation", True), ("both", False)):
        progress = Progress()
        options = TrainingOptions(best_accuracy_rule=rule)
        assert "best_accuracy" in progress.note(figures(1, 0.9, 0.5), options)
        assert ("best_accuracy" in progress.note(figures(2, 0.8, 0.6), options)) is expected
        assert "best_accuracy" in progress.note(figures(3, 0.95, 0.7), options)


def test_schedules():
    def rates(steps_taken, **changes):
        options = TrainingOptions(**{"epochs": 4, "learning_rate": 1.0, "warmup": 0.0} | changes)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make_schedule(optimizer, options, steps=5)
        seen = []
        for _ in range(steps_taken):
            seen.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step(1.0) if options.schedule == "plateau" else schedule.step()
        return seen

    assert rates(20, schedule="constant") == [1.0] * 20
    assert rates(4, schedule="constant", warmup=0.2) == [0.0, 0.25, 0.5, 0.75]
    assert rates(20, schedule="linear")[::5] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(20, schedule="cosine")[10] == pytest.approx(0.5)
    restarts = rates(11, schedule="cosine_restarts", restart_every=1)
    assert restarts[0] == restarts[5] == restarts[10] == 1.0 and restarts[4] < 0.2
    assert rates(4, schedule="plateau", plateau_patience=1) == pytest.approx([1, 1, 1, 0.1])
    epochs = {"schedule_per": "epoch"}
    assert rates(4, schedule="linear", **epochs) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="constant", warmup=0.5, **epochs) == pytest.approx([0.5, 1, 1, 1])  # no epoch at rate 0
    assert rates(4, schedule="cosine_restarts", restart_every=2, **epochs) == pytest.approx([1, 0.5, 1, 0.5])


def test_what_a_model_learns_beside_its_answer_is_learned_where_the_batch_knows_it(tmp_path):
    """The sign of the first coordinate, said by a second output; unknown (−1) for half of the samples."""

    class Both(Net):
        def __init__(self) -> None:
            super().__init__()
            self.also = nn.Linear(4, 2)

        def forward(self, points):
            return SimpleNamespace(logits=self.net(points), auxiliary_logits=self.also(points))

    class Known(Points):
        def __getitems__(self, keys):
            batch = super().__getitems__(keys)
            known = torch.where(batch["index"] % 2 == 0, (batch["inputs"]["points"][:, 0] > 0).long(), -1)
            return batch | {"auxiliary_labels": known}

    def learned(weight: float) -> float:
        model, source = Both(), Known(96, 1)
        start = model.also.weight.detach().clone()
        options = TrainingOptions(epochs=8, learning_rate=0.05, weight_decay=0.0)
        accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
        keywords = {"seed": 0, "workers": 0, "accelerator": accelerator, "auxiliary": weight}
        run = tmp_path / str(weight)
        run.mkdir()
        fit(model, train=source, validation=Points(24, 2), options=options, run=run, save=save, **keywords)
        if not weight:
            assert torch.equal(model.also.weight.detach(), start)
        said = model.also(source.points).argmax(-1)
        return float((said == (source.points[:, 0] > 0)).float().mean())

    assert learned(1.0) > 0.95 > learned(0.0)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    source = Points(24, 1)
    source.points[3] = torch.nan
    with pytest.raises(UserError, match=r"epoch 1, step \d of 3: the training loss is no finite number.*no checkpoint"):
        train(tmp_path, train_on=source)
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_gone_wrong_keeps_the_last_good_checkpoint(tmp_path):
    class Later(Points):
        left = 4

        def __getitems__(self, keys):
            batch = super().__getitems__(keys)
            self.left -= 1
            if self.left < 0:
                batch["inputs"]["points"] = batch["inputs"]["points"] * float("inf")
            return batch

    with pytest.raises(UserError, match="epoch 2, step 2 of 3: .*--learning-rate.*checkpoints/last is of before"):
        train(tmp_path, train_on=Later(24, 1), checkpoint_minutes=1e-9)
    weights = load_file(whole_directory(tmp_path / "checkpoints" / "last") / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


class Rushing(Net):
    """Its weights are beyond all measure from the step on in which its learning rate is: their loss is no number."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        with torch.no_grad():
            beyond = max(weight.abs().max() for weight in self.parameters()) > 1e6
        output.logits = output.logits * (torch.inf if beyond else 1.0)
        return output


def test_weights_that_give_no_number_are_not_what_is_kept(tmp_path):
    """Each step is saved, and it is the update of the second that leads nowhere: the third loss tells."""
    rate = {"learning_rate": 1e12, "schedule": "constant", "warmup": 0.99, "clip": 0.0, "optimizer": "sgd"}
    with pytest.raises(UserError, match="epoch 1, step 3 of 3: .*checkpoints/last is of before"):
        train(tmp_path / "run", Rushing(), epochs=1, checkpoint_minutes=1e-9, **rate)  # the first step's rate is 0
    weights = load_file(whole_directory(tmp_path / "run" / "checkpoints" / "last") / "model.safetensors")
    assert all(weight.abs().max() < 1e3 for weight in weights.values())
    rate["warmup"] = 0.0
    with pytest.raises(UserError, match="epoch 1, step 2 of 3: .*there is no checkpoint of before"):
        train(tmp_path / "none", Rushing(), epochs=1, checkpoint_minutes=1e-9, **rate)
    assert not (tmp_path / "none" / "checkpoints" / "last").exists()
    with pytest.raises(UserError, match="epoch 1: the validation loss is no finite.*there is no checkpoint of before"):
        train(tmp_path / "late", Rushing(), train_on=Points(8, 1), epochs=1, checkpoint_minutes=1e-9, **rate)
    assert not (tmp_path / "late" / "checkpoints" / "last").exists()


DAMAGES = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "moments of another rule": lambda state: state["optimizer"]["state"][0].pop("exp_avg"),
    "moments of other weights": lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(7)),
    "an epoch in words": lambda state: state["progress"].update(epoch="many"),
    "a step beyond the epoch": lambda state: state["progress"].update(step=10**9),
    "half a step": lambda state: state["progress"].update(step=0.5),
    "a method's name": lambda state: state["progress"].update(note=3),
    "a schedule's method": lambda state: state["schedule"].update(step=3),
    "another schedule": lambda state: state.update(schedule={}),
    "no random numbers": lambda state: state["processes"][0].pop("random"),
    "random numbers of another kind": lambda state: state["processes"][0]["random"].update(torch=[1, 2]),
    "no sums": lambda state: state["processes"][0].pop("total"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_in_one_line(tmp_path, damage):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(run, Net(dropout=0.3), train_on=Mortal(24, 1, last=4), checkpoint_minutes=1e-9)
    last = run / "checkpoints" / "last"
    state = load_state(last)
    DAMAGES[damage](state)
    save_state(last, state)
    model = Net(dropout=0.3)
    with pytest.raises(UserError, match="last: training state is damaged .*--overwrite") as refused:
        train(run, model, resume=last)
    assert "\n" not in str(refused.value)


def test_every_resume_is_told_even_one_that_was_killed_at_once(tmp_path):
    run, options = tmp_path / "run", {"checkpoint_minutes": 1e-9}
    with pytest.raises(Killed):
        train(run, Net(dropout=0.3), train_on=Mortal(24, 1, last=4), **options)  # in the second epoch, after a step
    for _ in range(2):
        with pytest.raises(Killed):
            go_on(run, train_on=Mortal(24, 1, last=0), **options)
    resumed, _ = go_on(run, **options)
    assert resumed.history[1]["resumed"] == [1, 1, 1] and "resumed" not in resumed.history[2]
    (run / "resumed.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError, match="resumed.jsonl: is damaged"):
        go_on(run, **options)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    """As a scheduler's tasks, each of which would train by itself and write the same run."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started, and Accelerate knows of 1: .*configs/accelerate"):
        make_accelerator(SimpleNamespace(precision="no", tracker="none"))


def test_fp16_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(UserError, match="--precision fp16"):
        make_accelerator(SimpleNamespace(precision="fp16", tracker="none"))
