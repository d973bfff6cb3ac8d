"""A script for studies that trains nothing, and writes at once what a training script writes."""

# Accuracy is accuracy + seed / 10. `fail` ends it with a refusal, `stop` after a checkpoint, `sleep` keeps it going
# until there is a file `awake`.
FAKE = """
import argparse, json, pathlib, shutil, sys, time, yaml

parser = argparse.ArgumentParser()
for name in "config output data cache seed accuracy encoder weights features fail stop sleep learning-rate".split():
    parser.add_argument("--" + name)
for name in "test resume overwrite".split():
    parser.add_argument("--" + name, action=argparse.BooleanOptionalAction)
given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
run = pathlib.Path(given["output"])
with open("starts.txt", "a", encoding="utf-8") as file:
    file.write(f"{run.name} {' '.join(key for key in ('resume', 'overwrite') if given.get(key))}".strip() + "\\n")
if run.exists() and not given.get("resume"):
    assert given.get("overwrite"), "exists"
    shutil.rmtree(run)
options = yaml.safe_load(open(run / "config.yaml" if given.get("resume") else given["config"], encoding="utf-8"))
if options.get("fail"):
    print("Traceback of some launcher")
    print("train_fake.py: error: no such thing as " + str(options["fail"]), file=sys.stderr)
    print("something behind it", file=sys.stderr)
    sys.exit(2)
run.mkdir(parents=True, exist_ok=True)
chosen = {"output": str(run), "hidden": 8, "score": "best_loss"}
(run / "config.yaml").write_text(yaml.safe_dump(options | chosen), encoding="utf-8")
for name in ("last", "best_loss", "best_accuracy"):
    if options.get("stop") != "early":
        (run / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
if options.get("stop") and not given.get("resume"):
    sys.exit("stopped")
for _ in range(int(10 * float(options.get("sleep", 0)))):
    time.sleep(0 if pathlib.Path("awake").exists() else 0.1)
accuracy = float(options["accuracy"]) + int(options["seed"]) / 10
(run / "environment.json").write_text(json.dumps({"task": "fake", "parameters": {"trained": 1234567, "frozen": 5}}))
(run / "history.jsonl").write_text('{"epoch": 1, "seconds": 1.5}\\n{"epoch": 2, "seconds": 2.0}\\n')
(run / "report.md").write_text(options.get("data", "") and "- LEAKY: 3 photos\\n")
by = {"dish": {"accuracy": accuracy, "n": 3}, "yes/no": {"accuracy": accuracy / 2, "n": 1}}
figures = {"accuracy": accuracy, "loss": 1 - accuracy, "macro_f1": accuracy / 4, "n": 4, "by_type": by}
splits = ["validation"] + ["test"] * options.get("test", True)
metrics = {name: figures for name in splits}
if "test" in splits:
    metrics["validation"] = figures | {"accuracy": 0.125}
(run / "metrics.json").write_text(json.dumps(metrics))
"""
