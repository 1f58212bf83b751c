"""`kogpt import`: the imported model is the same, rows are matched by token, and training continues from it."""

import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from builders import make_run
from trainings import deepspeed_file, launch, losses

from kogpt.checkpoint.layout import step_folder
from kogpt.checkpoint.load import load_for_inference
from kogpt.checkpoint.start import matched_rows
from kogpt.checkpoint.verify import verify
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share, TrainBatches
from kogpt.hub.export import export_model
from kogpt.hub.import_run import as_wordpiece, import_run, read_pieces
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.options import parse
from kogpt.train.run_folder import hold


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    """A GPT-2 folder with the corpus's own tokenizer: two layers, 2 heads of 16."""
    folder = tmp_path_factory.mktemp("model") / "exported"
    export_model(run, folder, texts=["모든 국민은"])
    return folder


def test_own_vocabulary_keeps_every_row(corpus, run, exported, tmp_path):
    pieces = TokenCorpus.open(corpus).vocab_size
    assert import_run(exported, tmp_path / "run", corpus)[:2] == (pieces, pieces)
    ours = load_for_inference(tmp_path / "run")
    theirs = load_for_inference(run).model
    ids = torch.randint(pieces, (2, 32))
    assert torch.equal(ours.model(ids), theirs(ids))
    assert ours.info["step"] == 0
    assert verify(step_folder(tmp_path / "run", 0)) is None


def test_own_vocabulary_keeps_every_row_as_other_programs_save_it(corpus, exported, tmp_path):
    """Without vocab.txt, as TRL leaves it: the names in tokenizer.json are those of bytes."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (copy / name).write_bytes((exported / name).read_bytes())
    pieces = TokenCorpus.open(corpus).vocab_size
    assert import_run(copy, tmp_path / "run", corpus)[:2] == (pieces, pieces)


@pytest.mark.parametrize(
    ("arch", "context", "proposed"), [("qwen3", 4096, 1024), ("qwen3", 512, None), ("gpt2", 2048, None)]
)
def test_the_printed_command_is_one_that_a_machine_can_train(
    arch, context, proposed, corpus, tokenizer, kogpt, tmp_path
):
    """A Qwen3 says 40,960 tokens, which nobody wants in every window. A GPT-2 has no other context than its own."""
    export_model(
        make_run(tmp_path / "model", tokenizer, arch, max_seq_len=context), tmp_path / "exported", texts=["모든 국민은"]
    )
    run = tmp_path / "continued run"
    done = kogpt("import", tmp_path / "exported", run, "--corpus", corpus)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("Continue with: ")]
    words = shlex.split(line)
    options = parse(words[words.index("launch/train.py") + 1 :])
    assert (options.run.out, options.corpora[0].path) == (run, corpus)
    assert options.model.max_seq_len == proposed


def test_rows_go_by_piece():
    rows = torch.randn(3, 4)
    out, taken = matched_rows(rows, {"가": 2, "##나": 0, "다": 1}, ["[LF]", "가", "##나", "나"])
    assert taken == 2
    mean = (rows[2] + rows[0]) / 2
    assert torch.allclose(out, torch.stack([mean, rows[2], rows[0], mean]))


@pytest.mark.parametrize(
    ("piece", "space", "expected"),
    [("▁나라", "▁", "나라"), ("라", "▁", "##라"), ("ĠëĤĺ", "Ġ", "나"), ("ëĤĺ", "Ġ", "##나"), ("Ġthe", "Ġ", "the")],
)
def test_other_notations(piece, space, expected):
    assert as_wordpiece(piece, space) == expected


def test_a_byte_level_gpt2_gives_its_words(corpus, tmp_path):
    """The vocabulary that GPT-2 has, trained here by the library that defines it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    opened = TokenCorpus.open(corpus)
    decode = open_tokenizer(opened.tokenizer_folder).decode
    texts = [decode(opened.article(i).tolist()) for i in range(len(opened))]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=800, special_tokens=["<|endoftext|>"]))
    bpe.save(str(tmp_path / "tokenizer.json"))
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=800, **shape))
    theirs.save_pretrained(tmp_path)
    import_run(tmp_path, tmp_path / "run", corpus)
    ours = load_for_inference(tmp_path / "run").model
    vocab = open_tokenizer(opened.tokenizer_folder).vocab
    found = read_pieces(tmp_path)
    wte = theirs.transformer.wte.weight
    taken = [piece for piece in vocab if piece in found and not piece.startswith("[")]
    assert {"국가", "##의", "##에"} <= set(taken)
    for piece in taken:
        # What the library writes for this token: a word after a space, or the inside of one.
        written = decoders.ByteLevel().decode([bpe.id_to_token(found[piece]) or ""])
        assert written == (piece.removeprefix("##") if piece.startswith("##") else f" {piece}")
        assert torch.equal(ours.wte.weight[vocab.index(piece)], wte[found[piece]])
    assert torch.equal(ours.wte.weight[vocab.index("[CLS]")], wte[0])
    assert torch.equal(ours.wte.weight[vocab.index("[SEP]")], wte[0])
    config = json.loads((tmp_path / "config.json").read_bytes())
    # A configuration without an end token has that of GPT-2 by default, which is no row of this model.
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": 50256}))
    assert "[SEP]" not in read_pieces(tmp_path)
    import_run(tmp_path, tmp_path / "without an end", corpus)


def test_a_prefix_for_continuations_says_nothing_about_a_bpe(tmp_path):
    """transformers writes an empty one for a slow GPT-2's; tokens without a mark are continuations all the same."""
    from tokenizers import Tokenizer, models

    vocab = {piece: row for row, piece in enumerate(["나", "▁", "라", "나라", "▁나라"])}
    merges = [("나", "라"), ("▁", "나라")]
    Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    assert json.loads((tmp_path / "tokenizer.json").read_bytes())["model"]["continuing_subword_prefix"] == ""
    found = read_pieces(tmp_path)
    assert {piece: row for piece, row in found.items() if piece} == {"##나": 0, "##라": 2, "##나라": 3, "나라": 4}


def test_what_cannot_be_imported(corpus, exported, tmp_path):
    run = tmp_path / "run"
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (other / name).write_bytes((exported / name).read_bytes())
    with pytest.raises(UserError, match=r"neither vocab\.txt nor tokenizer\.json"):
        import_run(other, run, corpus)
    (other / "vocab.txt").write_text("the\na\n")
    with pytest.raises(UserError, match=r"none of the .* tokens"):
        import_run(other, run, corpus)
    (other / "vocab.txt").write_text("\n".join(map(str, range(5000))))
    with pytest.raises(UserError, match="5,000 tokens for a model of"):
        import_run(other, run, corpus)
    assert not run.exists()
    import_run(exported, run, corpus)
    with pytest.raises(UserError, match="already holds checkpoints"):
        import_run(exported, run, corpus)


def test_a_run_folder_that_a_training_has_is_left_alone(corpus, exported, tmp_path):
    run = tmp_path / "run"
    lock = hold(run)
    with pytest.raises(UserError, match="in use by another training"):
        import_run(exported, run, corpus)
    assert [path.name for path in run.iterdir()] == [".lock"]
    lock.release()
    import_run(exported, run, corpus)


def test_a_tokenizer_left_by_a_start_that_came_to_nothing_gives_way(corpus, exported, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (make_run(tmp_path / "other") / "tokenizer").rename(run / "tokenizer")
    import_run(exported, run, corpus)
    assert open_tokenizer(run / "tokenizer").sha256 == open_tokenizer(TokenCorpus.open(corpus).tokenizer_folder).sha256


def test_training_goes_on_from_it_with_its_shape(corpus, run, exported, tmp_path):
    model = load_for_inference(run).model
    run = tmp_path / "run"
    import_run(exported, run, corpus)
    config = deepspeed_file(tmp_path / "ds.json", 2)
    arguments = ["--corpus", str(corpus), "--out", str(run), "--deepspeed-config", str(config), "--wandb", "off"]
    arguments += ["--prompts", "--stride", "16", "--steps", "3", "--eval-every", "3", "--save-every", "3"]
    with launch(arguments, tmp_path / "log", world=1, command=False) as job:
        assert job.wait() == [0], job.said
    batches = TrainBatches(
        [(TokenCorpus.open(corpus), 1.0)], max_seq_len=32, seed=1, share=Share(2, 4, 0, 1, torch.device("cpu"))
    )
    with torch.no_grad():
        first = [model(ids, targets).item() for ids, targets, *_ in batches.step(0).micro_batches]
    assert losses(run)[0] == pytest.approx(sum(first) / (8 * 32), abs=1e-5)
    assert losses(run)[2] < losses(run)[0]
    trained = load_for_inference(run)
    assert trained.info["step"] == 3
    assert trained.model.config.n_head == 2
    assert math.isfinite(json.loads((run / "run.json").read_text())["loss"])
    with launch([*arguments, "--depth", "2"], tmp_path / "log2", world=1, command=False) as job:
        assert job.wait() == [2]
    assert "n_embd is 128 instead of 32" in job.said
