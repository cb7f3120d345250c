#!/usr/bin/env bash
# From a fresh checkout to a trained detector: makes .venv, installs, generates a data set, trains,
# evaluates on images it never trained on, predicts, and shows the numbers and the pictures.
# A second call goes on where the first one stopped. `scripts/demo.sh --fresh` starts over.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "") ;;
    --fresh) rm -rf runs/demo data/demo ;;
    *)
        echo "usage: scripts/demo.sh [--fresh]" >&2
        exit 2
        ;;
esac

source scripts/environment.sh ""
retina=.venv/bin/retina
run=runs/demo
started=$SECONDS

echo "== 1/4 generating the data set"
"$retina" data synth data/demo --images 1000 --validation-images 200 --seed 0
"$retina" data stats --annotations data/demo/train/annotations.json --images data/demo/train/images

echo "== 2/4 training"
"$retina" train configs/demo.yaml --resume

echo "== 3/4 evaluating on the validation images"
"$retina" evaluate "$run/checkpoints/best.safetensors" \
    --annotations data/demo/validation/annotations.json --images data/demo/validation/images \
    --output "$run/evaluation"

echo "== 4/4 predicting"
mapfile -t pictures < <(find data/demo/validation/images -name '*.jpg' | sort | head -n 12)
"$retina" predict "$run/checkpoints/best.safetensors" "${pictures[@]}" --output "$run/predictions"

echo
echo "done in $((SECONDS - started)) s, without the installation"
echo "  numbers   $run/evaluation/metrics.json"
echo "  pictures  $run/predictions/*.jpg"
echo "  curves    .venv/bin/tensorboard --logdir $run/tensorboard"
echo "  detector  $run/checkpoints/best.safetensors"
