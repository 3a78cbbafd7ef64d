"""Forecasts: constants recovered from rows that follow them, residuals with honest intervals, and I-do-not-know."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, replace

import pytest

from llmopt.messages import t
from llmopt.models.catalogue import built_in_models
from llmopt.predict import residual as residual_module
from llmopt.predict.devices import device_spec, known_devices
from llmopt.predict.fitting import PRIORS, Measured, fit_constants
from llmopt.predict.forecast import Cell, Forecast, Forecaster, PastRun, Unknown, features_of, shipped_constants
from llmopt.predict.machine import FILE, MachineSpeed, cpu_spec, load_speed, measure_machine, save_speed
from llmopt.predict.physics import Constants, output_token_seconds, prompt_seconds, step_seconds
from llmopt.predict.queue import Service, simulate_closed_loop, simulate_open_loop
from llmopt.predict.residual import Residual
from llmopt.predict.settings import features_of_settings, serving_of
from llmopt.predict.work import Serving, work_of
from llmopt.records import Device, DeviceType, Load, Task

LLAMA = built_in_models()["llama3.1-8b"].facts
MIXTURE = built_in_models()["qwen3-30b-a3b"].facts
H100 = known_devices()["h100"]
SERVING = Serving(sequences=16, prompt_tokens=1024, output_tokens=1024)
CELL = Cell(model="llama3.1-8b", device="h100", engine="vllm")
TASK = Task(load=Load(streams=16), max_tokens=1024, prompt_tokens=1024)


def _work(model=LLAMA, **changes):
    return work_of(model, replace(SERVING, **changes))


def _grid(model=LLAMA):
    for sequences in (1, 4, 16, 64, 256):
        for prompt, output in ((1024, 1024), (8192, 1024), (1024, 128)):
            for ranks in (1, 2, 8):
                yield _work(
                    model, sequences=sequences, prompt_tokens=prompt, output_tokens=output, tensor_parallel=ranks
                )


def test_one_sequence_is_bound_by_bandwidth_and_many_by_arithmetic():
    none = Constants(layer_s=0, exchange_s=0, sequence_s=0, expert_s=0, bandwidth_share=1, compute_share=1)
    single = _work(sequences=1)
    assert step_seconds(single, H100, none) == pytest.approx(single.weight_bytes / H100.bandwidth, rel=0.05)
    long_prompt = _work(prompt_tokens=8192)
    assert prompt_seconds(long_prompt, H100, none) > 2 * 8192 * 7e9 / 989e12


def test_narrower_arithmetic_uses_narrower_units():
    assert H100.flops_at(8) == 1979e12
    assert H100.flops_at(4.5) == 1979e12  # no 4-bit units there
    assert known_devices()["b200"].flops_at(4.5) == 9000e12
    assert H100.flops_at(16) == H100.flops_at(12) == 989e12


@pytest.mark.parametrize("model", [LLAMA, MIXTURE])
def test_constants_are_recovered_from_rows_that_follow_them(model):
    true = Constants(
        bandwidth_share=0.7,
        compute_share=0.5,
        layer_s=60e-6,
        exchange_s=8e-6,
        interference=1.6,
        sequence_s=2e-5,
        expert_s=8e-6,
    )
    rng = random.Random(3)
    rows = [
        Measured(work=work, spec=H100, seconds=output_token_seconds(work, H100, true) * math.exp(rng.gauss(0, 0.05)))
        for work in _grid(model)
    ]
    fitted = fit_constants(rows, PRIORS["dense"], strength=0.1)
    said = [
        abs(output_token_seconds(r.work, r.spec, fitted) / output_token_seconds(r.work, r.spec, true) - 1) for r in rows
    ]
    assert sum(said) / len(said) < 0.05
    before = [abs(output_token_seconds(r.work, r.spec, PRIORS["dense"]) / r.seconds - 1) for r in rows]
    assert sum(said) / len(said) < sum(before) / len(before) / 2


def test_a_few_odd_rows_do_not_bend_the_constants():
    true = Constants()
    rows = [Measured(work=work, spec=H100, seconds=output_token_seconds(work, H100, true)) for work in _grid()]
    odd = [replace(row, seconds=row.seconds * 20) if index % 15 == 0 else row for index, row in enumerate(rows)]
    fitted = fit_constants(odd, PRIORS["dense"])
    errors = sorted(abs(output_token_seconds(r.work, r.spec, fitted) / r.seconds - 1) for r in rows)
    assert errors[len(errors) // 2] < 0.25


def test_no_rows_leave_the_prior():
    assert fit_constants([], PRIORS["dense"]) == PRIORS["dense"]


def test_shipped_constants_are_shares_of_peaks():
    for kinds in shipped_constants().values():
        assert set(kinds) == {"dense", "mixture"}
        for constants in kinds.values():
            assert 0 < constants.bandwidth_share < 1
            assert 0 < constants.compute_share < 1
            assert all(value > 0 for value in asdict(constants).values())


def test_what_was_never_seen_is_not_known():
    strange = replace(H100, family="tensor-abacus", name="abacus")
    answer = Forecaster().forecast(replace(CELL, device="abacus"), _work(), strange)
    assert isinstance(answer, Unknown)
    assert answer.reason == "predict.unseen_device"
    assert "abacus" in t(answer.reason, lang="ko", **answer.values)


def test_three_own_runs_make_an_unseen_device_known():
    strange = replace(H100, family="tensor-abacus", name="abacus", bandwidth=H100.bandwidth / 50)
    cell = replace(CELL, device="abacus")
    true = Constants(bandwidth_share=0.6, layer_s=1e-4)

    def run(sequences: int) -> PastRun:
        work = _work(sequences=sequences)
        return PastRun(cell=cell, work=work, spec=strange, seconds=output_token_seconds(work, strange, true))

    assert isinstance(Forecaster([run(1), run(8)]).forecast(cell, _work(), strange), Unknown)
    answer = Forecaster([run(1), run(8), run(64)]).forecast(cell, _work(sequences=16), strange)
    assert isinstance(answer, Forecast)
    assert answer.output_token_s == pytest.approx(run(16).seconds, rel=0.2)


def test_runs_of_a_cell_narrow_and_correct_its_forecasts():
    constants = {"hopper": {"dense": Constants(), "mixture": Constants()}}

    def run(sequences: int) -> PastRun:
        work = _work(sequences=sequences)
        return PastRun(cell=CELL, work=work, spec=H100, seconds=1.5 * output_token_seconds(work, H100, Constants()))

    target = _work(sequences=24)
    truth = 1.5 * output_token_seconds(target, H100, Constants())
    before = Forecaster(constants=constants).forecast(CELL, target, H100)
    after = Forecaster([run(n) for n in (1, 8, 16, 32, 64)], constants=constants).forecast(CELL, target, H100)
    elsewhere = Forecaster([run(8)], constants=constants).forecast(replace(CELL, engine="sglang"), target, H100)
    assert abs(after.output_token_s / truth - 1) < 0.08 < abs(before.output_token_s / truth - 1)
    assert after.spread < before.spread
    assert after.output_token_low_s < truth < after.output_token_high_s
    assert (before.runs, after.runs, elsewhere.runs) == (0, 5, 0)
    assert elsewhere.output_token_s == before.output_token_s


def test_intervals_cover_what_they_say():
    rng = random.Random(5)
    inside = total = 0
    for _ in range(60):
        shift = rng.gauss(0, 0.2)
        slope = rng.gauss(0, 0.05)
        rows = [{"log2_sequences": float(n)} for n in range(8)]
        values = [shift + slope * (n - 4) + rng.gauss(0, 0.06) for n in range(8)]
        known = [1, 3, 4, 6]
        residual = Residual([rows[n] for n in known], [values[n] for n in known])
        for n in (0, 2, 5, 7):
            mean, spread = residual.at(rows[n])
            inside += abs(values[n] - mean) < 1.645 * spread
            total += 1
    assert 0.85 < inside / total <= 1.0


def test_residual_without_runs_is_the_prior():
    mean, spread = Residual([], []).at({"log2_sequences": 3.0})
    assert (mean, spread) == (0.0, pytest.approx(math.sqrt(0.2**2 + 0.2**2 + 0.06**2)))


def test_a_cell_that_scatters_widens_its_own_intervals():
    rows = [{"log2_sequences": float(n)} for n in range(6)]
    calm = Residual(rows, [0.1] * 6).at({"log2_sequences": 2.5})[1]
    wild = Residual(rows, [0.8, -0.8] * 3).at({"log2_sequences": 2.5})[1]
    assert wild > 2 * calm


def test_devices_are_found_by_the_words_of_their_names():
    def probed(name: str) -> Device:
        return Device(index=0, uuid="u", vendor="nvidia", kind=DeviceType.CUDA, name=name, total_bytes=1, free_bytes=1)

    assert device_spec(probed("NVIDIA H200")).name == "h200"
    assert device_spec(probed("NVIDIA GeForce RTX 4090")).name == "rtx-4090"
    assert device_spec(probed("NVIDIA GB200")).name == "gb200"
    assert device_spec("h100").name == "h100"
    assert device_spec(probed("Abacus 3000")) is None


def test_settings_become_the_load_the_engine_sees():
    serving = serving_of(LLAMA, {"max_num_seqs": 8, "quantization": "awq", "tensor_parallel": 2}, TASK)
    assert (serving.sequences, serving.weight_bits, serving.arithmetic_bits, serving.tensor_parallel) == (
        8,
        4.2,
        16.0,
        2,
    )
    assert serving_of(LLAMA, {"quantization": "fp8"}, TASK).arithmetic_bits == 8.0
    gguf = replace(LLAMA, format="gguf", weight_bytes=LLAMA.parameters * 5 // 8)
    assert serving_of(gguf, {"slots": 4, "cache_type_k": "q8_0"}, TASK).weight_bits == pytest.approx(5.0)
    features = features_of_settings({"threads": 4, "ubatch": 512, "flash_attention": "on", "cache_type_k": "q8_0"})
    assert features["log2_threads"] == 2.0
    assert features["flash_attention=on"] == 1.0


def test_waiting_appears_when_streams_exceed_slots():
    def simulate(streams: int, slots: int):
        return simulate_closed_loop(
            Service(slots=slots, output_tokens=50, prompt_s=0.1, step_s=lambda n: 0.01 + 0.001 * n), streams=streams
        )

    free, crowded = simulate(4, 4), simulate(16, 4)
    assert free.ttft_p50_s < 0.6 < crowded.ttft_p50_s
    assert crowded.ttft_p95_s >= crowded.ttft_p50_s
    assert simulate(8, 8).answers_per_minute > simulate(1, 1).answers_per_minute
    lone = simulate(1, 1)
    assert lone.answers_per_minute == pytest.approx(60 / (0.1 + 50 * 0.011), rel=0.03)


def test_threads_see_no_more_than_the_machine_has():
    speed = MachineSpeed(threads=4, bandwidth_one=10e9, bandwidth_all=25e9, flops_one=50e9, flops_all=180e9)
    assert cpu_spec(speed, 1).bandwidth == 10e9
    assert cpu_spec(speed, 4).bandwidth == 25e9
    assert cpu_spec(speed, 2).flops_at(4.5) == 100e9
    assert cpu_spec(speed, 1, prompt_threads=2).prompt_speedup == 2.0, "prompts may be given more threads"
    assert cpu_spec(speed, 2).prompt_speedup == 1.0
    disturbed = replace(speed, bandwidth_all=6e9, flops_all=40e9)
    assert cpu_spec(disturbed, 4).bandwidth == 10e9, "all threads together are no slower than one was"
    assert cpu_spec(disturbed, 4).flops_at(16) == 50e9


def test_attention_without_flash_computes_the_other_slots_of_a_shared_cache():
    gguf = replace(LLAMA, format="gguf", weight_bytes=5_000_000_000, parameters=8_000_000_000)
    settings = {"slots": 4, "kv_unified": True, "flash_attention": "on"}
    flash = work_of(gguf, serving_of(gguf, settings, TASK))
    plain = work_of(gguf, serving_of(gguf, {**settings, "flash_attention": "off"}, TASK))
    apart = work_of(gguf, serving_of(gguf, {**settings, "flash_attention": "off", "kv_unified": False}, TASK))
    unsaid = work_of(gguf, serving_of(gguf, {"slots": 4}, TASK))
    assert plain.serving.sequences == 4
    assert plain.attention_flops == pytest.approx(4 * apart.attention_flops)
    assert plain.prompt_attention_flops == pytest.approx(4 * apart.prompt_attention_flops)
    assert unsaid.attention_flops < flash.attention_flops < apart.attention_flops
    assert flash.dense_flops == plain.dense_flops


def test_few_runs_widen_the_interval_as_student_says():
    rows = [{"log2_sequences": float(n)} for n in range(40)]
    far = {"log2_sequences": 400.0, "log2_prompt": 90.0}
    few, many = (Residual(rows[:n], [0.0] * n).at(far)[1] for n in (1, 40))
    assert few > many
    for freedom, quantile in ((7, 1.895), (11, 1.796), (26, 1.706)):
        assert 1.645 * residual_module._wider(freedom) == pytest.approx(quantile, rel=0.003)


def test_an_open_loop_waits_more_the_nearer_the_rate_comes_to_what_is_possible():
    service = Service(slots=2, output_tokens=10, prompt_s=0.1, step_s=lambda n: 0.02)
    idle, busy = (simulate_open_loop(service, rate=rate, seed=1) for rate in (0.1, 4.0))
    assert idle.ttft_p50_s == pytest.approx(0.1)
    assert busy.ttft_p50_s > 2 * idle.ttft_p50_s
    assert idle.answers_per_minute == pytest.approx(6.0, rel=0.4)
    assert simulate_open_loop(service, rate=1.0, seed=3) == simulate_open_loop(service, rate=1.0, seed=3)


def test_measuring_the_machine_gives_plausible_peaks_that_are_kept_by_machine(tmp_path):
    speed = measure_machine(2, seconds=0.6)
    assert speed.threads == 2
    assert 1e8 < speed.bandwidth_one < 1e12
    assert 1e8 < speed.flops_one < 1e13
    assert load_speed(hardware="abc", folder=tmp_path) is None
    save_speed(speed, hardware="abc", folder=tmp_path)
    save_speed(replace(speed, threads=9), hardware="def", folder=tmp_path)
    assert load_speed(hardware="abc", folder=tmp_path) == speed
    assert load_speed(hardware="other", folder=tmp_path) is None
    (tmp_path / FILE).write_text("{broken")
    assert load_speed(hardware="abc", folder=tmp_path) is None


def test_features_of_equal_work_are_equal():
    assert features_of(_work()) == features_of(_work())
    assert features_of(_work(), {"threads": 2.0})["threads"] == 2.0
