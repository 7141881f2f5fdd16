"""Train an identity adapter, stage `denoise`: for `accelerate launch`. `--help` lists the options.

accelerate launch train/train_id_adapter.py --train_data_dir shards/ --output_dir run/
"""

from idgen.training.command import script

if __name__ == "__main__":
    script("denoise")
