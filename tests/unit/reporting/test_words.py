"""Fields and points in words."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from sim.reporting.preset_words import figures_in_words
from sim.reporting.relabel import Labels, relabel
from sim.reporting.series import with_series
from sim.reporting.tables import swept_columns
from sim.reporting.words import WORDS, point_in_words, ranges_in_words, words_of
from sim.scenario.scenario import Scenario
from support.builders import a_scenario


@pytest.mark.parametrize(
    ("field", "label", "value", "text"),
    [
        ("failures.rate_per_hour", "failure rate (% per hour)", 0.05, "failure rate 5 % per hour"),
        ("failures.rate_per_hour", "failure rate (% per hour)", 0.07, "failure rate 7 % per hour"),
        ("strategies[checkpoint].interval_iterations", "checkpoint interval (iterations)", 25.0,
         "checkpoint interval 25 iterations"),
        ("network.access.up_mbit_per_s", "upload bandwidth of each node (Mbit/s)", 500,
         "upload bandwidth of each node 500 Mbit/s"),
        ("failures.downtime.mean_hours", "mean (hours)", 0.5, "mean 0.5 hours"),
        ("training.optimizer.learning_rate", "learning rate", 0.002, "learning rate 0.002"),
        ("network", "network", "gcp", "network gcp"),
        ("failures", "failures", '{"kind": "weibull", "scope": "node", "downtime": {"mean_hours": 1}}',
         "failures: weibull, scope node, mean downtime 1 hour"),
        ("workload.max_in_flight", "microbatches in flight", None, "microbatches in flight null"),
    ],
)  # fmt: skip
def test_a_field_has_words_and_a_unit(field, label, value, text):
    assert words_of(field).label == label
    assert point_in_words({field: value}) == text


def test_the_fields_with_words_exist():
    for field in WORDS:
        first, *_ = field.split(".")
        assert first in Scenario.model_fields


def test_ranges_name_all_values_or_the_ends():
    points = [{"failures.rate_per_hour": rate, "network": name} for rate in (0.05, 0.1, 0.16) for name in ("a", "b")]
    assert ranges_in_words(points) == "failure rate 5 to 16 % per hour, network a and b"
    assert ranges_in_words([{"network": name} for name in "abc"]) == "network a, b and c"
    assert ranges_in_words([{}]) == ""


def test_labels_replace_those_of_all_panels_with_the_same_axis():
    figure = Figure()
    for axis in figure.subplots(1, 2):
        axis.set(xlabel="iteration", ylabel="loss")
    relabel(figure, Labels("steps", "nats", "A title"), "loss")
    assert {axis.get_xlabel() for axis in figure.axes} == {"steps"}
    assert {axis.get_ylabel() for axis in figure.axes} == {"nats"}
    assert figure.get_suptitle() == "A title"
    figure.axes[0].set_xlabel("hours")
    with pytest.raises(ValueError, match="--xlabel: the panels of loss have different x axes, 'hours' and 'steps'"):
        relabel(figure, Labels("x"), "loss")


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("interval_iterations", 25.0, "checkpointing every 25 iterations"),
        ("interval_seconds", 600, "checkpointing every 600 s"),
        ("blocking_share", 0.5, "checkpointing, blocking share 0.5"),
        ("blocking_share", float("nan"), "checkpointing"),
    ],
)
def test_a_variant_is_named_by_its_option_in_words(option, value, name):
    table = pd.DataFrame({"strategy": ["checkpoint"], f"strategies[checkpoint].{option}": [value]})
    assert list(with_series(table, list(table.columns[1:]))["series"]) == [name]


def test_a_changed_preset_is_named_with_its_changes():
    network = {"preset": "single_cluster", "storage": {"bandwidth_mbit_per_s": 500}, "bandwidth_factor": 0.5}
    config = a_scenario(network=network).network
    storage = "bandwidth of the checkpoint store 500 Mbit/s"
    words = figures_in_words("networks", config)
    assert words.startswith("'single_cluster' with ")
    assert set(words.partition(" with ")[2].split(", ")) == {storage, "bandwidth 0.5 × the network's"}
    assert figures_in_words("networks", config, ["network.bandwidth_factor"]) == f"'single_cluster' with {storage}"
    assert figures_in_words("networks", a_scenario(network="single_cluster").network) == "'single_cluster'"
    own_links = a_scenario(network={"preset": "gcp", "links": ()}).network
    assert figures_in_words("networks", own_links) == "'gcp' with other links"


def test_columns_of_swept_fields_are_in_words_with_values_in_the_unit():
    (rate,) = swept_columns(["failures.rate_per_hour"])
    assert (rate.title, rate.format(0.05), rate.format(float("nan"))) == ("failure rate (% per hour)", "5", "")
    alike = swept_columns(["failures.rate_per_hour", "ab.interval_iterations", "cd.interval_iterations"])
    assert [" ".join(one.title.split()) for one in alike][1:] == [
        "ab.interval iterations",
        "cd.interval iterations",
    ]
