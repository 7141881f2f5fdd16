#!/usr/bin/env bash
# Train, evaluate and package the adapter of the model of 64 px, after `train.py tiny.toml`:
#
#     bash train/tiny/adapter.sh train/tiny/tiny.toml CACHE MOBILEFACENET.onnx YUNET.onnx
#
# CACHE is the folder that the settings name. A run that was interrupted continues.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
settings=$(realpath "$1")
unseen=$(realpath "$3")
yunet=$(realpath "$4")
cd "$2"

idgen prepare photos/train.tar --layout webdataset --output shards --test-share 0 --validation-share 0 \
    --base pipeline --cache augmented latents
python "$here/joint.py" --config "$here/joint.toml" --resume_from_checkpoint latest
idgen train denoise --config "$here/adapter.toml" --resume_from_checkpoint latest
idgen train reward --config "$here/reward.toml" --rollout.detector "$yunet" --resume_from_checkpoint latest
python "$here/average.py" adapter reward averaged --share 0.6
python "$here/assemble.py" "$settings" joint/base assembled
idgen train denoise --config "$here/identity_net.toml" --resume_from_checkpoint latest

test -f judge.onnx || python "$here/judge.py" "$settings" judge.onnx
for adapter in adapter reward averaged; do
    idgen evaluate --base assembled --id-adapter "$adapter" --identities photos/people --prompts "$here/prompts.txt" \
        --id-scale 1 --steps 20 --guidance-scale 3 --batch-size 20 --eval-encoder "imagenet:$unseen" \
        --trained-with dlib-resnet-v1 --detector "$yunet" --classifier judge.onnx --output "reports/$adapter"
done
python "$here/package.py" "$settings" assembled averaged identity_net
