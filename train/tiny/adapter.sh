#!/usr/bin/env bash
# Train, evaluate and package the adapter of the built-in model, after `train.py SETTINGS`:
#
#     bash train/tiny/adapter.sh SETTINGS CACHE MOBILEFACENET.onnx YUNET.onnx [ADAPTER]
#
# SETTINGS is tiny.toml or tiny128.toml, and CACHE the folder that it names. ADAPTER is the one that training continues:
# for tiny128.toml, that of the model of 64 px. A run that was interrupted continues.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
settings=$(realpath "$1")
unseen=$(realpath "$3")
yunet=$(realpath "$4")
continued=${5:+--adapter.id_adapter $(realpath "$5") --max_train_steps 1400 --learning_rate 5e-4}
cd "$2"

idgen prepare photos/train.tar --layout webdataset --output shards --test-share 0 --validation-share 0 \
    --base pipeline --cache augmented latents
python "$here/joint.py" --config "$here/joint.toml" --resume_from_checkpoint latest $continued
idgen train denoise --config "$here/adapter.toml" --resume_from_checkpoint latest
idgen train reward --config "$here/reward.toml" --rollout.detector "$yunet" --resume_from_checkpoint latest
python "$here/average.py" adapter reward averaged --share 0.6
python "$here/assemble.py" "$settings" joint/base assembled --identity-net averaged
idgen train denoise --config "$here/identity_net.toml" --resume_from_checkpoint latest

test -f judge.onnx || python "$here/judge.py" "$settings" judge.onnx
for adapter in adapter reward averaged; do
    idgen evaluate --base assembled --id-adapter "$adapter" --identities photos/people --prompts "$here/prompts.txt" \
        --id-scale 1 --steps 20 --guidance-scale 3 --batch-size 20 --eval-encoder "imagenet:$unseen" \
        --trained-with dlib-resnet-v1 --detector "$yunet" --classifier judge.onnx --output "reports/$adapter"
done
python "$here/package.py" "$settings" assembled averaged identity_net
