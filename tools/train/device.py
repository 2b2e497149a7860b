#!/usr/bin/env python3
"""Trains the transformer and the text encoder on a rented GPU, in the background, within a fixed time.

    device.py start --total SECONDS --work WORK [--vae VAE] [--start FOLDER]  returns at once
    device.py wait SECONDS          until all is done or the time is over; prints the log's end
    device.py out FOLDER            the newest weights in files of at most 15 MB, scores, contact sheet and logs

Everything is copied to the run's folder first (--run, by default one in the folder for temporary files) and runs in a session
of its own, so that it outlives the command that began it and the files it began with. Stages, one process each: vae
(train_vae.py, without --vae), text (pretrain_text.py), coarse and fine (train.py at half and at full size), export and
evaluation. With --gpus 2 or more, train.py runs on all of them, and the text stage on the second while train.py prepares.
Training knows the time at which it must be finished; a late start only shortens it. `wait` ends with status 0 while the run
goes well or is done, and at once with 1 when a stage failed. Weights are written every minute and can be taken at any time.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STAGES = ("text", "coarse", "fine")
REDUCTION = int(os.environ.get("EMOJI_REDUCTION", "16"))  # as networks.py


def status(run):
    return (run / "status").read_text() if (run / "status").exists() else "nothing was started"


def set_status(run, text):
    (run / "status.new").write_text(text)
    (run / "status.new").rename(run / "status")


def log_end(run, lines):
    log = run / "log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def start(args):
    run = args.run
    if status(run).startswith("running"):
        raise SystemExit(f"{run}: {status(run)}")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    begun = time.time()
    code = run / "code"
    shutil.copytree(HERE, code, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("work", "vae", "start"):
        source = getattr(args, name)
        if source:
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, run / name)
    command = [sys.executable, code / "device.py", "stages", "--run", run, "--begun", str(begun)]
    for name in ("total", "vae_seconds", "text", "evaluation", "coarse", "batch", "coarse_batch", "captions", "couples", "every", "begin",
                 "canvases", "drawings", "astray", "decoder", "gpus"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += ["--no-compile"] * args.no_compile 
    set_status(run, "running")
    with open(run / "log", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
    (run / "pid").write_text(str(process.pid))
    print(f"started, process {process.pid}, folder {run}")


def stages(args):
    """In the background: one stage after another."""
    run, code = args.run, args.run / "code"
    trained = args.begun + args.total - args.evaluation  # the time at which training must be finished
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    begin = ["--start", run / "start"] if (run / "start").exists() else []

    def outcome_of(limit, command, gpu):
        try:
            return subprocess.run([sys.executable, *map(str, command)], env=dict(env, CUDA_VISIBLE_DEVICES=gpu) if gpu else env,
                                  stdin=subprocess.DEVNULL, timeout=max(30.0, limit)).returncode
        except subprocess.TimeoutExpired:
            return "no end in its time"

    def stage(name, limit, *command):
        set_status(run, f"running {name}")
        print(f"== {name}, {time.time() - args.begun:.0f} s after the start", flush=True)
        outcome = outcome_of(limit, command, None)
        if outcome:
            set_status(run, f"failed in {name}: {outcome}")
            sys.exit(1)

    def stage_beside(name, limit, end, *command):
        """On the second GPU, beside the next stage, which waits for the file `end`: it receives the outcome."""
        def go():
            outcome = outcome_of(limit, command, "1")
            end.with_suffix(".new").write_text(str(outcome))
            end.with_suffix(".new").rename(end)
        print(f"== {name} on the second GPU, {time.time() - args.begun:.0f} s after the start", flush=True)
        threading.Thread(target=go, daemon=True).start()

    compiling = ["--no-compile"] * args.no_compile
    vae = run / "vae"
    if not vae.exists():
        stage("vae", args.vae_seconds + 180, code / "train_vae.py", "--work", run / "work", "--out", run / "autoencoder",
              "--minutes", args.vae_seconds / 60, *compiling)
        vae = run / "autoencoder" / "vae.safetensors"
    if args.decoder > 0:
        stage("decoder", args.decoder + 240, code / "train_encoder.py", "--part", "decoder", "--work", run / "work", "--model", vae,
              "--out", run / "autoencoder", "--minutes", args.decoder / 60, "--drawings", args.drawings)
        vae = run / "autoencoder" / "vae.safetensors"
    if args.text > 0:
        limit = 3 * args.text + 120
        text = [code / "pretrain_text.py", "--work", run / "work", "--out", run / "text", "--seconds", args.text,
                "--captions", args.captions, *begin, *compiling]
        begin = ["--start", run / "text"]
        if args.gpus > 1:
            stage_beside("text", limit, run / "text-end", *text)
            begin += ["--start-end", run / "text-end"]
        else:
            stage("text", limit, *text)
    train = [code / "train.py"]
    if args.gpus > 1:
        train = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", args.gpus, "--", *train]
    for name, share, options in (("coarse", args.coarse, ["--size", 128, "--batch", args.coarse_batch, "--end", 0.3]),
                                 ("fine", 1, ["--batch", args.batch, "--begin", args.begin])):
        if share > 0:
            now = time.time()
            until = now + share * (trained - now)
            stage(name, until - now + 60, *train, "--work", run / "work", "--vae", vae, "--out", run / name,
                  "--until", until, "--captions", args.captions, "--couples", args.couples, *options, *begin, *compiling,
                  *(["--canvases", args.canvases, "--drawings", args.drawings, "--astray", args.astray] if name == "fine" else []))
            begin = ["--start", run / name]
    if args.evaluation <= 0:
        print(f"trained after {time.time() - args.begun:.0f} s", flush=True)
        set_status(run, "done")
        return
    model, limit = run / "emoji", 3 * args.evaluation + 60
    stage("export", limit, code / "export.py", "--work", run / "work", "--vae", vae, "--model",
          run / "fine", "--out", model, "--canvases", args.canvases)
    evaluate = code / "evaluate"
    both = [run / "prompts.jsonl", run / "sheet.jsonl"]
    more = [run / "words.jsonl", run / "sizes.jsonl"][:1 if args.canvases == 1 else 2]
    for prompts, options in zip((*both, *more), (["--work", run / "work"], ["--sheet"], ["--words", "seen"],
                                                 ["--work", run / "work", "--sizes"])):
        stage("prompts", limit, evaluate, "prompts", "--out", prompts, "--every", args.every, *options)
    both[0].write_text("".join(prompts.read_text() for prompts in (both[0], *more)))
    (run / "all.jsonl").write_text("".join(prompts.read_text() for prompts in both))
    stage("pictures", limit, evaluate, "torch", "--prompts", run / "all.jsonl", "--pictures", run / "pictures", "--model", model)
    stage("sheet", limit, evaluate, "sheet", "--prompts", both[1], "--pictures", run / "pictures", "--out", run / "sheet.png")
    set_status(run, "running score")
    with open(run / "score.log", "w") as log:  # its status only says whether the targets are met
        subprocess.run([sys.executable, evaluate, "score", "--work", run / "work", "--prompts", run / "prompts.jsonl",
                        "--pictures", run / "pictures", "--json", run / "scores.json", "--failures"], env=env,
                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    print("".join((run / "score.log").read_text().splitlines(True)[:20]))
    if not (run / "scores.json").exists():
        set_status(run, "failed in score")
        sys.exit(1)
    print(f"all done after {time.time() - args.begun:.0f} s", flush=True)
    set_status(run, "done")


def alive(pid):
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait(args):
    limit = time.time() + args.seconds
    while True:
        if status(args.run).startswith("running") and not alive((args.run / "pid").read_text()):
            time.sleep(0.5)  # it may just have ended
            if status(args.run).startswith("running"):
                set_status(args.run, f"failed: the process is gone; it was {status(args.run)}")
        if not status(args.run).startswith("running") or time.time() >= limit:
            break
        time.sleep(min(0.5, max(0.0, limit - time.time())))
    now = status(args.run)
    print(log_end(args.run, args.lines))
    print(f"status: {now}")
    sys.exit(0 if now.startswith(("running", "done")) else 1)


def out(args):
    run, folder = args.run, args.folder
    folder.mkdir(parents=True, exist_ok=True)
    newest = next((run / s for s in STAGES[::-1] if list((run / s).glob("model-*.safetensors"))), None)
    files = sorted(newest.glob("model-*.safetensors")) if newest else []
    files += sorted(run.glob("autoencoder/vae.safetensors"))
    files += [run / name for name in ("log", "scores.json", "score.log", "sheet.png") if (run / name).exists()]
    for file in files:
        shutil.copyfile(file, folder / file.name)
    print(f"weights of stage {newest.name if newest else 'none'}; {', '.join(f.name for f in files)}; status: {status(run)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, function, **options):
        sub = commands.add_parser(name, **options)
        sub.set_defaults(function=function)
        sub.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / "emoji-run")
        return sub

    for name, function in (("start", start), ("stages", stages)):
        sub = command(name, function)
        sub.add_argument("--total", type=float, required=True, help="seconds for everything, from now on")
        sub.add_argument("--vae-seconds", type=float, default=330, help="seconds of train_vae.py, where --vae is not given")
        sub.add_argument("--text", type=float, default=70, help="seconds of pretrain_text.py; 0: without")
        sub.add_argument("--evaluation", type=float, default=110, help="seconds to keep for export and evaluation; 0: without")
        sub.add_argument("--coarse", type=float, default=0.33 if REDUCTION == 8 else 0,
                         help="share of training at half size (with EMOJI_REDUCTION=8 only); 0: none")
        sub.add_argument("--batch", type=int, default=512)
        sub.add_argument("--coarse-batch", type=int, default=1024)
        sub.add_argument("--begin", type=int, default=6, help="see train.py")
        sub.add_argument("--captions", type=int, default=1_600_000, help="size of a pool of captions")
        sub.add_argument("--couples", type=int, default=80_000, help="side-by-side pictures in a pool")
        sub.add_argument("--canvases", type=int, default=1, help="see train.py; with 20 every size from 128 to 512")
        sub.add_argument("--drawings", type=int, default=256, help="see train.py")
        sub.add_argument("--astray", type=float, default=0.0, help="see train.py")
        sub.add_argument("--decoder", type=float, default=0, help="seconds of train_encoder.py --part decoder; 0: without")
        sub.add_argument("--every", type=int, default=1, help="evaluate only each Nth prompt")
        sub.add_argument("--no-compile", action="store_true")
        sub.add_argument("--gpus", type=int, default=1, help="train on the first so many GPUs, a batch each")
        if name == "start":
            sub.add_argument("--work", type=Path, required=True)
            sub.add_argument("--vae", type=Path, help="vae.safetensors or an exported folder; without it: trained first")
            sub.add_argument("--start", type=Path, help="a folder of weights to begin from; without it: from random weights")
        else:
            sub.add_argument("--begun", type=float, required=True)
    sub = command("wait", wait)
    sub.add_argument("seconds", type=float)
    sub.add_argument("--lines", type=int, default=40)
    command("out", out).add_argument("folder", type=Path)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
