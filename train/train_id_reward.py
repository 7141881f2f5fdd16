"""Train an identity adapter, stage `reward`: for `accelerate launch`. `--help` lists the options.

accelerate launch train/train_id_reward.py --train_data_dir shards/ --output_dir run/ --id_adapter run/
"""

from idgen.training.command import script

if __name__ == "__main__":
    script("reward")
