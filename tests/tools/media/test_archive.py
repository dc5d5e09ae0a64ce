"""Files of arrays: what was written comes back, and a stranger's file does no harm."""

import io
import zipfile

import numpy as np
import pytest

from tests.tools.disk import full_disk
from tools.media.archive import read_archive, write_archive

ARRAYS = {
    "image": np.random.default_rng(0).uniform(0, 255, (5, 4, 3)),
    "vector 3": np.arange(7, dtype=np.float32)[None],
    "count": np.array(5, np.int64),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "nothing": np.zeros((0, 3), np.uint8),
    "places": np.arange(4, dtype=np.int32),
}
ABOUT = {"format": 1, "name": "caf\udce9.jpg", "points": [[1, 2.5]]}


@pytest.fixture
def path(tmp_path):
    write_archive(tmp_path / "a.npz", ABOUT, ARRAYS)
    return tmp_path / "a.npz"


def test_what_was_written_comes_back(path):
    about, arrays = read_archive(path)
    assert about == ABOUT
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [one.name for one in path.parent.iterdir()] == ["a.npz"]


def test_it_is_numpy_s_own_format(path):
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["image"], ARRAYS["image"])


def test_a_full_disk_leaves_the_file_before(path):
    before = path.read_bytes()
    with full_disk(3000), pytest.raises(ValueError, match="cannot write"):
        write_archive(path, ABOUT, {"image": np.zeros(10000)})
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["a.npz"]


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text):
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("members", "compression"),
    [
        ({}, zipfile.ZIP_STORED),
        ({"about": npy(np.frombuffer(b"{}", np.uint8)), "image": npy(np.zeros(1000))}, zipfile.ZIP_DEFLATED),
        ({"about": npy(np.array([{}], object), allow_pickle=True)}, zipfile.ZIP_STORED),
        ({"about": npy(np.frombuffer(b"\xff\xff", np.uint8))}, zipfile.ZIP_STORED),
        ({"about": npy(np.zeros(3))}, zipfile.ZIP_STORED),
        ({"about": header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }")}, 0),
        ({"about": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }")}, 0),
        ({"about": header("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }")}, 0),
        ({"about": header("[" * 100)}, 0),
        ({"about": b"text"}, zipfile.ZIP_STORED),
        ({"about": npy(np.frombuffer(b"{}", np.uint8)) + b"more"}, zipfile.ZIP_STORED),
        ({str(number): b"" for number in range(5001)}, zipfile.ZIP_STORED),
    ],
)
def test_a_stranger_s_archive_is_refused_in_one_sentence(tmp_path, members, compression):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=r"cannot read '.*a\.npz': it is no checkpoint of this program, or is damaged"):
        read_archive(tmp_path / "a.npz")


def test_a_byte_that_was_changed_or_cut_off_never_gives_other_arrays(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            about, arrays = read_archive(path)
        except ValueError:
            pass
        else:  # something that says nothing, as a date
            assert about == ABOUT
            assert {name: array.tobytes() for name, array in arrays.items() if name in ARRAYS}.items() <= {
                name: array.tobytes() for name, array in ARRAYS.items()
            }.items()
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match="cannot read"):
            read_archive(path)


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_archive(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="it is not a file"):
        read_archive(tmp_path)


def test_what_is_not_wanted_is_looked_at_and_left(path):
    about, arrays = read_archive(path, lambda name: name == "image")
    assert (about, list(arrays)) == (ABOUT, ["image"])
    whole = bytearray(path.read_bytes())
    place = whole.index(ARRAYS["image"].tobytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="or is damaged"):
        read_archive(path, lambda name: name != "image")
