"""Report R3's letters: a recurrent net that learns to write words, of any list.

Belongs here: `common/recurrent.py` put to its smallest use, its loss beside R3's. Not here: words as inputs of another
task (`vqa/text.py`).

What R3 computes, which it does not say, is told by its figures. It writes "eello" after e, five letters in all, so it
writes as many as its words have. Its loss is the mean cross-entropy of the letters that follow a letter (four of each
word, no sign for the end), over the ten letters that occur; an epoch is one step over the three words together, and
the loss of epoch 10 is the one after ten steps. So computed, each of R3's ten figures lies among those of seeds 0 to
19. Computed otherwise, all 20 seeds lie above every one of them (with a sign for the end, or over the 26 letters of the
alphabet), below every one of them (a step for each word), or above the first (the loss before the tenth step). After h,
g and s all of seeds 0 to 49 write hello, green and start; after e half of them write eello, after t a quarter tarta,
and seven (14, 19, 20, 27, 28, 29, 33) all that R3 wrote.

A run's accuracy is of what was to be learned, for there is no other split: the share of the words' letters, but the
first of each, that the net writes rightly when it is given that first letter alone and goes on from its own.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pad_sequence

from common.encoders import count_parameters
from common.errors import UserError
from common.letters_options import R3_GIVEN, LettersOptions
from common.recurrent import Recurrent, time_mask
from common.runs import choose_output, open_run, release, typed_command, write_csv, write_json, write_text
from common.tables import markdown
from common.terminal import say_result

R3_LOSSES = dict(
    zip(
        range(10, 101, 10),
        (1.7421, 1.2190, 0.7296, 0.3721, 0.1836, 0.1004, 0.0627, 0.0438, 0.0332, 0.0266),
        strict=True,
    )
)
"""Epoch → what R3 reports of it."""
R3_WRITTEN = dict(zip(R3_GIVEN, ("hello", "green", "start", "eello", "tarta"), strict=True))


class LetterNet(nn.Module):
    """One-hot letters through a recurrent net to the letter that follows each."""

    def __init__(self, letters: Sequence[str], *, kind: str = "rnn", hidden: int = 12) -> None:
        super().__init__()
        self.letters = tuple(letters)
        self.recurrent = Recurrent(kind, len(letters), hidden)
        self.following = nn.Linear(self.recurrent.size, len(letters))

    def forward(self, sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Places in `letters` `(B, T)` with `lengths (B,)` → logits of the letter after each, `(B, T, letters)`."""
        states, _ = self.recurrent(one_hot(sequences, len(self.letters)), lengths)
        return self.following(states)

    def encode(self, text: str) -> torch.Tensor:
        """A text's letters as their places, `(T,)`."""
        return torch.tensor([self.letters.index(letter) for letter in text])

    def loss(self, words: Sequence[str]) -> torch.Tensor:
        """The mean cross-entropy of every letter but the words' first, given those before it."""
        encoded = [self.encode(word) for word in words]
        lengths = torch.tensor([len(word) - 1 for word in words])
        inputs = pad_sequence([word[:-1] for word in encoded], batch_first=True)
        targets = pad_sequence([word[1:] for word in encoded], batch_first=True)
        real = time_mask(lengths, inputs.shape[1])
        return cross_entropy(self(inputs, lengths)[real], targets[real])

    @torch.no_grad()
    def go_on(self, text: str, length: int) -> list[tuple[str, float]]:
        """From `text` with the likeliest letter, until there are `length` → the new ones, and how probable each was."""
        written = []
        while len(text) < length:
            logits = self(self.encode(text).unsqueeze(0), torch.tensor([len(text)]))
            probability, place = logits[0, -1].softmax(0).max(0)
            written.append((self.letters[int(place)], probability.item()))
            text += written[-1][0]
        return written

    def write(self, text: str, length: int) -> str:
        """`text` and what it goes on with, `length` letters in all."""
        return text + "".join(letter for letter, _ in self.go_on(text, length))


def fit_letters(options: LettersOptions, seconds: list[float] | None = None) -> tuple[LetterNet, list[float]]:
    """Train a net as `options` say → the net, and its loss after 0, 1, 2 … epochs.

    `seconds` gets those that each epoch took. Raises `UserError` when the loss is no number any more.
    """
    torch.manual_seed(options.seed)
    net = LetterNet(options.letters, kind=options.kind, hidden=options.hidden)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
    loss = net.loss(options.words)
    losses = [loss.item()]
    for epoch in range(1, options.epochs + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = net.loss(options.words)
        losses.append(loss.item())
        if seconds is not None:
            seconds.append(time.perf_counter() - started)
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"epoch {epoch}: the loss is {losses[-1]} at learning rate {options.learning_rate:g}; "
                "try a lower --learning-rate"
            )
    return net, losses


def train_letters(options: LettersOptions) -> dict[str, Any]:
    """Train, print the loss and what is written, and leave a run if `options` name one → what letters.json holds."""
    run = None if options.output is None else choose_output(options, "letters")
    started = time.perf_counter()
    each: list[float] = []
    net, losses = fit_letters(options, each)
    seconds = round(time.perf_counter() - started, 3)
    net.eval()
    reported = R3_LOSSES if options.is_r3 else {}
    found: dict[str, Any] = {
        "words": list(options.words),
        "letters": list(net.letters),
        "parameters": count_parameters(net)[0],
        "seconds": seconds,
        "losses": [
            {"epoch": epoch, "reported": reported.get(epoch), "measured": losses[epoch]}
            for epoch in _shown_epochs(options.epochs)
        ],
        "written": [
            {
                "given": text,
                "reported": R3_WRITTEN.get(text) if options.is_r3 else None,
                "written": (written := net.write(text, options.longest)),
                "trained word": max(
                    (word for word in options.words if written.startswith(word)), key=len, default=None
                ),
            }
            for text in options.given
        ],
    }
    print(
        f"{options.kind} of {options.hidden}, {len(options.words)} words of {len(net.letters)} letters, "
        f"{found['parameters']:,} parameters, {options.epochs} epochs in {seconds:.1f} s"
    )
    for rows in (found["losses"], found["written"]):
        print("\n" + markdown([_row(row, report=options.is_r3) for row in rows]))
    if run is not None:
        open_run(run, options, task="letters", command=typed_command(), parameters=(found["parameters"],) * 2)
        write_json(run / "letters.json", found)
        every = [{"epoch": k, "reported": reported.get(k), "measured": loss} for k, loss in enumerate(losses)]
        write_csv(run / "loss.csv", every)
        draw_loss(losses, reported, run / "curve.png")
        history = [
            {"epoch": k, "loss": loss, "seconds": round(its, 6)}
            for k, (loss, its) in enumerate(zip(losses[1:], each, strict=True), start=1)
        ]
        write_text(run / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        rows = letter_rows(net, options.words)
        write_csv(run / "predictions-train.csv", rows)
        write_json(run / "metrics.json", {"train": letter_metrics(rows, losses[-1])})  # last: the run is finished
        release(run)
        print(f"\neverything is in {run}")
    say_result(run=run, **found)
    return found


def letter_rows(net: LetterNet, words: Sequence[str]) -> list[dict[str, Any]]:
    """Every letter of the words but their first: what is written there from that one on. The word is its group."""
    return [
        {
            "id": f"{word}-{place}",
            "group": word,
            "type": "",
            "gold": word[place],
            "predicted": letter,
            "probability": round(probability, 6),
        }
        for word in dict.fromkeys(words)
        for place, (letter, probability) in enumerate(net.go_on(word[0], len(word)), start=1)
    ]


def letter_metrics(rows: Sequence[Mapping[str, Any]], loss: float) -> dict[str, Any]:
    """The figures of `letter_rows` as metrics.json has them; `loss`: of the letters that follow those before them."""
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["group"], []).append(row["gold"] == row["predicted"])
    every = [letter for word in right.values() for letter in word]
    by_word = {word: {"accuracy": sum(its) / len(its), "n": len(its)} for word, its in right.items()}
    return {"accuracy": sum(every) / len(every), "loss": loss, "n": len(every), "by_word": by_word}


def draw_loss(losses: Sequence[float], reported: dict[int, float], path: Path) -> None:
    """The loss after every epoch, and what was reported of some as rings."""
    from common.drawing import TRAIN, VALIDATION, plt, save_figure  # matplotlib is slow to load

    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    axis.plot(range(len(losses)), losses, color=TRAIN, marker="." if len(losses) < 20 else None, label="measured")
    rings = {epoch: loss for epoch, loss in reported.items() if epoch < len(losses)}
    if rings:
        at, values = list(rings), list(rings.values())
        axis.plot(at, values, "o", markerfacecolor="none", color=VALIDATION, label="reported (R3)")
        axis.legend(frameon=False)
    axis.set(xlabel="epoch", ylabel="cross-entropy per letter", ylim=(0, None))
    save_figure(figure, path, with_svg=True)


def _shown_epochs(epochs: int) -> list[int]:
    """10, 20 … up to about ten of them, and the last."""
    step = 10 * math.ceil(epochs / 100)
    return sorted({*range(step, epochs + 1, step), epochs})


def _row(row: dict[str, Any], *, report: bool) -> dict[str, Any]:
    """A row as it is printed: what was reported only where it is of this setting."""
    shown = {name: "–" if value is None else value for name, value in row.items()}
    return {
        "reported (R3)" if name == "reported" else name: value
        for name, value in shown.items()
        if report or name != "reported"
    }
