"""The command line: the names of diffusers' DreamBooth scripts, and what Lily adds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from diffusers.optimization import SchedulerType

from ..sharing import KINDS
from .checks import TRACKERS
from .families.flow_matching import WEIGHTINGS
from .optimizer import OPTIMIZERS

DESCRIPTION = """\
Teach a text-to-image model a new subject from a few pictures, with a Lily adapter (DreamBooth).

examples:
  # five pictures of a robot, on the small model that ships with this package (minutes on a laptop)
  accelerate launch train_scripts/train_dreambooth_lily.py \\
    --pretrained_model_name_or_path embedded --instance_data_dir examples/subjects/robot \\
    --output_dir outputs/robot --max_train_steps 300 --cache_latents \\
    --validation_prompt "a sks robot on a blue background"

  # your dog on Stable Diffusion 1.5, with pictures of other dogs so that it does not forget them
  accelerate launch train_scripts/train_dreambooth_lily.py \\
    --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --instance_data_dir photos/dog --instance_prompt "a photo of sks dog" --output_dir outputs/dog \\
    --with_prior_preservation --class_data_dir photos/any_dog --class_prompt "a photo of a dog" \\
    --mixed_precision fp16 --gradient_checkpointing --max_train_steps 800 --validation_prompt "sks dog in a bucket"

  # go on after an interruption
  ... the same command ... --resume_from_checkpoint latest
"""

NOT_HERE = {
    "--pre_compute_text_embeddings": "prompts are always encoded once and kept; leave the flag out",
    "--dataloader_num_workers": "pictures are kept in memory, so nothing is loaded during training; leave the flag out",
    "--lora_layers": "write --target_modules to_q to_k to_v to_out.0",
    "--lora_alpha": "write --scaling, a plain multiplier",
    "--lora_dropout": "write --lily_dropout",
    "--offload": "text encoders are freed once the prompts are encoded, and --cache_latents frees the autoencoder",
    "--upcast_before_saving": "the adapter is trained and saved in float32; leave the flag out",
    "--do_edm_style_training": "a pipeline with an EDM scheduler is trained that way by itself; leave the flag out",
    "--bnb_quantization_config_path": "write --quantize_base nf4, fp4 or int8",
    "--do_fp8_training": "write --quantize_base nf4, fp4 or int8",
    "--enable_xformers_memory_efficient_attention": "PyTorch's own attention is as lean; leave the flag out",
    "--local_rank": "accelerate launch says it by itself; leave the flag out",
    "--ne_1": "write --stride_A, the number of layers divided by ne_1",
    "--ne_2": "write --num_B",
    "--lily_s": "write --scaling",
}  # flags that a user may bring along -> what to do instead


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hints = [f"{flag}: {advice}" for flag, advice in NOT_HERE.items() if flag in message.replace("=", " ").split()]
        super().error(f"{message}\n" + "\n".join(hints) if hints else message)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "N" if action.type is int else "X" if action.type is float else "TEXT"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; flags that nobody gave stay ``None`` until `checks.complete` fills them in."""
    from .config_file import parse_with_config  # which needs the checks, and they the names of trackers

    return parse_with_config(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        description=DESCRIPTION,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.usage = "%(prog)s --pretrained_model_name_or_path NAME --instance_data_dir FOLDER [options]"
    parts = (_run, _model, _pictures, _adapter, _prior, _training, _optimizer, _checkpoints, _validation, _reporting)
    for add in parts:
        add(parser)
    return parser


# fmt: off
def _run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the run").add_argument
    add("--config", metavar="FILE",
        help="flags from a YAML file, such as run.yaml in the output folder of an earlier run; flags given here win")
    add("--dry_run", action="store_true",
        help="check everything, show the groups, the memory needed and the first batch as a picture, and stop")


def _model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("base model").add_argument
    add("--pretrained_model_name_or_path", required=True, metavar="NAME",
        help="a pipeline's folder, a hub id, or 'embedded', which ships here; the pipeline says how it is trained")
    add("--pretrained_vae_model_name_or_path", metavar="NAME", help="another autoencoder")
    add("--revision", help="revision on the hub")
    add("--variant", help="file variant, such as fp16")
    add("--cache_dir", help="where downloads are kept")


def _pictures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "pictures", "A file dog.txt beside dog.jpg is its caption and wins over --instance_prompt."
    ).add_argument
    add("--instance_data_dir", metavar="FOLDER", help="pictures of the subject; three to ten are enough")
    add("--dataset_name", metavar="NAME", help="instead: a dataset of the hub, or a folder that `datasets` can load")
    add("--dataset_config_name", metavar="NAME", help="which configuration of it")
    add("--image_column", metavar="NAME", help="its column of pictures (default: image)")
    add("--caption_column", metavar="NAME", help="its column of captions; they win over --instance_prompt")
    add("--instance_prompt", metavar="TEXT", help="the caption with a rare word for the subject: 'a photo of sks dog'")
    add("--resolution", type=int,
        help="edge of the training squares in pixels (default: 64 for embedded, else the model's own)")
    add("--center_crop", action="store_true", help="cut the middle instead of a place drawn anew each time")
    add("--random_flip", action="store_true", help="mirror every other picture, drawn anew each time")
    add("--use_aspect_ratio_buckets", action="store_true",
        help="train on rectangles shaped like the pictures, of about resolution x resolution pixels each")
    add("--aspect_ratio_buckets", metavar="H,W;H,W", help="the rectangles to choose from, in pixels")
    add("--alpha_mask", action="store_true", help="where a picture is transparent, the loss does not look")
    add("--mask_data_dir", metavar="FOLDER", help="masks with the pictures' names: the loss looks where they are white")
    add("--unmasked_weight", type=float, help="how much the loss looks elsewhere, 0 to 1 (default: 0)")
    add("--caption_dropout", type=float, default=0.0, metavar="P",
        help="share of the samples that are trained without their caption; 0.1 is usual (default: 0)")
    add("--repeats", type=int, default=1, help="how often each picture counts in an epoch (default: 1)")
    add("--cache_latents", action="store_true",
        help="encode the pictures once and free the autoencoder: faster; crops are then central")
    add("--disk_cache_dir", metavar="FOLDER",
        help="keep encoded pictures and prompts there for later runs, under the hash of what they were made from")


def _adapter(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "adapter", "Lily shares its A matrices between neighbouring layers and mixes num_B shared B experts."
    ).add_argument
    add("--rank", type=int, default=16, help="width of the adapter (default: 16)")
    add("--stride_A", type=int, default=4, help="how many neighbouring layers share one A (default: 4)")
    add("--num_B", type=int, default=4, help="B experts in each group of layers (default: 4)")
    add("--scaling", type=float, default=2.0, help="multiplier of the adapter, fixed for its life (default: 2)")
    add("--routing", default="sample", choices=("sample", "batch", "token", "static"),
        help="over what the router averages: each image alone, the batch as published, no average, or no router input")
    add("--lily_dropout", type=float, default=0.0, help="dropout on the adapter's input (default: 0)")
    add("--target_modules", nargs="+", default=list(KINDS), metavar="NAME",
        help="what to adapt: attention, feed-forward, names such as to_q attn2.to_k (default: attention feed-forward)")
    add("--train_text_encoder", action="store_true", help="adapt the CLIP text encoders as well")
    add("--text_encoder_lr", type=float, help="their learning rate (default: that of the denoiser)")
    add("--use_ema", action="store_true", help="save and show a running average of the adapter's weights")
    add("--ema_decay", type=float, help="of the average (default: 0.999, less in the first steps)")


def _prior(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "prior preservation", "Keep what the model knows about the class by training on its own pictures beside yours."
    ).add_argument
    add("--with_prior_preservation", action="store_true", help="switch it on")
    add("--class_data_dir", metavar="FOLDER", help="pictures of the class; missing ones are generated into it")
    add("--class_prompt", metavar="TEXT", help="the caption without the rare word: 'a photo of a dog'")
    add("--num_class_images", type=int, help="how many (default: 100)")
    add("--prior_loss_weight", type=float, help="their weight in the loss (default: 1)")
    add("--sample_batch_size", type=int, help="how many are generated at a time (default: 4)")
    add("--prior_generation_precision", choices=("no", "fp32", "fp16", "bf16"),
        help="precision of generating them (default: as training)")
    add("--with_output_preservation", action="store_true",
        help="without class pictures: on --class_prompt, stay with what the base model answers to the same noise")
    add("--output_preservation_weight", type=float, help="its weight in the loss (default: 1)")


def _training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--max_train_steps", type=int, help="optimizer steps; wins over epochs (default: 500)")
    add("--num_train_epochs", type=int, help="times that every instance picture is seen")
    add("--train_batch_size", type=int, default=4,
        help="pictures at a time on each device; may be more than there are pictures (default: 4)")
    add("--gradient_accumulation_steps", type=int, default=1, help="batches in an optimizer step (default: 1)")
    add("--gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--mixed_precision", choices=("no", "fp16", "bf16"),
        help="precision of the base model; the adapter stays in float32 (default: what accelerate is set to)")
    add("--allow_tf32", action="store_true", help="faster float32 on Ampere GPUs and later")
    add("--quantize_base", choices=("nf4", "fp4", "int8"),
        help="keep the base model's weights in 4 bits (bitsandbytes, on a GPU) or 8 (torchao): less memory")
    add("--compile_base", action="store_true", help="compile the base model: a slow start, then faster steps")
    add("--noise_offset", type=float,
        help="for epsilon and v models: shift the noise of each channel as a whole; 0.05 is usual (default: 0)")
    add("--snr_gamma", type=float, help="min-SNR weighting of the loss of epsilon and v models; 5 is usual")
    add("--weighting_scheme", choices=WEIGHTINGS,
        help="for flow-matching models: how noise levels are drawn or losses weighted (default: logit_normal)")
    add("--logit_mean", type=float, help="of logit_normal; above 0, more noise (default: 0)")
    add("--logit_std", type=float, help="of logit_normal (default: 1)")
    add("--mode_scale", type=float, help="of mode (default: 1.29)")
    add("--guidance_scale", type=float, help="told to guidance-distilled models in training (default: 1)")
    add("--max_sequence_length", type=int, help="tokens for the large text encoder (default: the pipeline's own)")
    add("--seed", type=int, help="of everything that is drawn; the same seed gives the same run (default: drawn)")


def _optimizer(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimizer").add_argument
    rate = "(default at rank 16: 1.4e-3 for embedded, else 1.4e-4; it falls with the root of the rank)"
    add("--learning_rate", type=float, help=rate)
    add("--scale_lr", action="store_true", help="multiply the rate by batch size, accumulation and processes")
    add("--lr_scheduler", default="constant", choices=[s.value for s in SchedulerType], help="(default: constant)")
    add("--lr_warmup_steps", type=int, default=0, help="steps of warm-up, where the scheduler has one (default: 0)")
    add("--lr_num_cycles", type=int, default=1, help="restarts of cosine_with_restarts (default: 1)")
    add("--lr_power", type=float, default=1.0, help="power of polynomial (default: 1)")
    add("--lr_step_rules", help="factors for piecewise_constant and the steps where each ends: '1:10,0.1:20,0.01'")
    add("--optimizer", default="AdamW", type=str.lower, choices=OPTIMIZERS, metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adamw)")
    add("--use_8bit_adam", action="store_true", help="8-bit AdamW from bitsandbytes")
    add("--adam_beta1", type=float, default=0.9, help="(default: 0.9)")
    add("--adam_beta2", type=float, default=0.999, help="(default: 0.999)")
    add("--adam_weight_decay", type=float, default=1e-4, help="(default: 1e-4)")
    add("--adam_weight_decay_text_encoder", type=float, help="(default: that of the denoiser)")
    add("--adam_epsilon", type=float, default=1e-8, help="(default: 1e-8)")
    add("--prodigy_beta3", type=float, help="of prodigy's step size (default: the root of beta2)")
    for name in ("decouple", "use_bias_correction", "safeguard_warmup"):
        add(f"--prodigy_{name}", action=argparse.BooleanOptionalAction, help="of prodigy (default: on)")
    add("--max_grad_norm", type=float, default=1.0, help="gradients longer than this are shortened to it (default: 1)")


def _checkpoints(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "saving", "Ctrl-C and SIGTERM finish the step, save, and stop; a resumed run ends as if it had never stopped."
    ).add_argument
    add("--output_dir", default="lily-dreambooth", metavar="FOLDER", help="(default: lily-dreambooth)")
    add("--checkpointing_steps", type=int, default=500,
        help="save a checkpoint to resume from every so many steps and at the end; 0: none (default: 500)")
    add("--checkpoints_total_limit", type=int, help="keep only so many; older ones go when the new one is safe")
    add("--resume_from_checkpoint", metavar="latest|FOLDER", help="go on from the newest checkpoint, or from this one")


def _validation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "validation", "samples/step-N.png: every prompt without and with the adapter, from the same noise."
    ).add_argument
    add("--validation_prompt", nargs="+", action="extend", metavar="TEXT", help="one or several; may be repeated")
    add("--num_validation_images", type=int, help="pictures of each prompt (default: 4)")
    add("--validation_steps", type=int, help="every so many steps, and at the end (default: four times a run)")
    add("--validation_epochs", type=int, help="the same in epochs")
    add("--validation_data_dir", metavar="FOLDER",
        help="pictures held out from training: their loss at fixed noise levels shows when it is enough")
    add("--validation_guidance_scale", type=float, help="(default: 3 for embedded, else what suits the model)")
    add("--validation_inference_steps", type=int, help="(default: 25)")


def _reporting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("reporting and sharing").add_argument
    add("--report_to", default="tensorboard", help=f"{', '.join(TRACKERS)} (default: tensorboard)")
    add("--logging_dir", default="logs", help="inside the output folder (default: logs)")
    add("--logging_steps", type=int, default=25, help="report routers and experts every so many steps (default: 25)")
    add("--push_to_hub", action="store_true", help="upload the result when all is saved")
    add("--hub_model_id", help="name of the repository (default: that of the output folder)")
    add("--hub_token", help="better: log in with 'hf auth login'")
# fmt: on
