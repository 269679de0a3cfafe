"""Building a run's data: which pictures, cut to which rectangles, as which source of samples."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from .buckets import automatic_buckets, parse_buckets
from .dataset import Item, Listing, Pictures, check_pictures, list_pictures
from .disk_cache import DiskCache
from .draws import Draws
from .families import Family
from .hub_dataset import hub_items
from .prior import class_items, generate_class_pictures
from .sources import Source


@dataclass(frozen=True)
class Listings:
    """The picture files of a run, read once to see that they can be read; nothing else is loaded yet."""

    instances: list[Item]
    sizes: list[tuple[int, int]]  # (width, height) of the instance pictures
    held_out: list[Item]
    notes: list[str]


def list_data(args: argparse.Namespace) -> Listings:
    """Find the instance pictures and the held-out ones.

    Raises:
        TrainingError: a folder, a picture or a caption is not as it should be.
    """
    listing = _listing(args)
    sizes = check_pictures(listing.items)
    held_out, notes = [], list(listing.notes)
    if args.validation_data_dir:
        other = list_pictures(args.validation_data_dir, args.instance_prompt)
        check_pictures(other.items)
        held_out, notes = other.items, notes + other.notes
    return Listings(listing.items, sizes, held_out, notes)


@dataclass(frozen=True)
class Data:
    """The decoded pictures of a run."""

    instances: Pictures
    classes: Pictures | None
    held_out: Pictures | None
    notes: list[str]

    @property
    def all(self) -> list[Pictures]:
        return [pictures for pictures in (self.instances, self.classes, self.held_out) if pictures is not None]

    @property
    def captions(self) -> list[str]:
        return [item.caption for pictures in self.all for item in pictures.items]


def read_data(
    args: argparse.Namespace, listings: Listings, family: Family, accelerator: Accelerator, seed: int
) -> Data:
    """Decode the pictures; missing class pictures are drawn first."""
    square = [(args.resolution, args.resolution)]
    family.latent_shape(*square[0])
    buckets = square
    if args.aspect_ratio_buckets:
        buckets = parse_buckets(args.aspect_ratio_buckets, family.pixels_per_latent)
    elif args.use_aspect_ratio_buckets:
        buckets = automatic_buckets(args.resolution, family.pixels_per_latent, listings.sizes)
    instances = Pictures(listings.instances, buckets)
    held_out = Pictures(listings.held_out, buckets) if listings.held_out else None
    classes = _class_pictures(args, family, accelerator, seed) if args.with_prior_preservation else None
    notes = [note for pictures in (instances, held_out) if pictures is not None for note in pictures.notes()]
    data = Data(instances, classes, held_out, [*listings.notes, *notes])
    return Data(instances, classes, held_out, data.notes + _cut_captions(family, data) + _crop_notes(args, data))


def make_source(
    args: argparse.Namespace,
    family: Family,
    pictures: Pictures,
    stream: str,
    seed: int,
    device: torch.device,
    disk: DiskCache | None,
) -> Source:
    """The samples of some pictures; if latents are cached, they are encoded now. `stream`: see `Draws`."""
    instance = stream == "instance"
    draws = Draws(
        seed=seed,
        stream=stream,
        latent_shapes=tuple(family.latent_shape(*pictures.edges(i)) for i in range(len(pictures))),
        batch_size=args.train_batch_size,
        center_crop=args.center_crop,
        random_flip=args.random_flip,
        caption_dropout=args.caption_dropout if instance else 0.0,
        noise_offset=args.noise_offset or 0.0,
    )
    source = Source(family, pictures, draws, device, args.unmasked_weight or 0.0)
    family.pipe.vae.to(device)
    if args.cache_latents:
        source.cache_latents(disk)
    return source


def _listing(args: argparse.Namespace) -> Listing:
    if args.dataset_name:
        columns = (args.image_column or "image", args.caption_column)
        where = (args.dataset_name, args.dataset_config_name)
        return hub_items(*where, *columns, args.instance_prompt, args.cache_dir, alpha_mask=args.alpha_mask)
    return list_pictures(
        args.instance_data_dir, args.instance_prompt, masks=args.mask_data_dir, alpha_mask=args.alpha_mask
    )


def _class_pictures(args: argparse.Namespace, family: Family, accelerator: Accelerator, seed: int) -> Pictures:
    generate_class_pictures(
        family.pipe,
        args.class_data_dir,
        args.class_prompt,
        args.num_class_images,
        batch_size=args.sample_batch_size,
        resolution=args.resolution,
        seed=seed,
        dtype=args.class_dtype,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    accelerator.wait_for_everyone()
    items = class_items(args.class_data_dir, args.class_prompt, args.num_class_images)
    return Pictures(items, [(args.resolution, args.resolution)])


def _cut_captions(family: Family, data: Data) -> list[str]:
    cut = {caption: family.truncated(caption) for caption in dict.fromkeys(data.captions)}
    return [f"no text encoder sees the end of {c!r}: {rest!r}" for c, rest in cut.items() if rest]


def _crop_notes(args: argparse.Namespace, data: Data) -> list[str]:
    square = not (args.use_aspect_ratio_buckets or args.aspect_ratio_buckets)
    oblong = any(w != h for pictures in data.all for w, h in pictures.sizes)
    if args.cache_latents and oblong and square and not args.center_crop:
        return ["--cache_latents: pictures that are not square are cut in the middle, always at the same place"]
    return []
