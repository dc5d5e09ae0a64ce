from tests.tools.media.fuzz_pictures import files, fuzz
from tools.media import images


def test_damaged_pictures_end_with_a_picture_or_one_sentence(tmp_path, monkeypatch, capfd):
    # A damaged header may promise any size; what decoding a large one costs is not the question here.
    monkeypatch.setattr(images, "MAX_BYTES", 50_000_000)
    counts = fuzz(1500, 0, tmp_path)
    printed = capfd.readouterr()
    print(dict(counts))
    assert (counts["problems"], printed.out) == (0, ""), printed.out
    assert printed.err == ""
    assert min(counts["pictures"], counts["refused as damaged"], counts["refused for another reason"]) > 50


def test_the_same_seed_makes_the_same_files():
    assert list(files(60, 3)) == list(files(60, 3))
    assert list(files(60, 3)) != list(files(60, 4))
