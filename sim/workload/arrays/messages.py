"""The messages of `flows.py` over arrays: the same rates and arrivals to the bit, without SimPy.

Plain functions over lists, or over arrays where numba compiles them. A message is a number; a link of a path is
`links[3 path + k]`, -1 for none. Messages are chained on each of their links, and those of one channel (the hops
between the same two nodes) in the order in which they wait for it.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final, NamedTuple

from sim.workload.arrays.calendar import Calendar, schedule, whole_ticks

ENTERS, DUE, ARRIVED = 0, 1, 2
"""Kinds of events; they are about a message, DUE about number sent · messages + message."""

LINKS: Final = 3
"""Most links of a path: up from the sender, between, down to the receiver."""

NO: Final = -1

GROWING: Final = -1.0
"""In place of a rate that is not fixed yet."""


class Paths(NamedTuple):
    """Paths, and the links that they share with others; by path and by link."""

    latency_seconds: Sequence[float]
    limit: Sequence[float]  # bytes/s that a message cannot exceed
    alone: Sequence[float]  # bytes/s without others
    links: Sequence[int]
    link_bytes_per_second: Sequence[float]


class Traffic(NamedTuple):
    """State of the messages."""

    totals: MutableSequence[int]  # messages sent, number of the last search
    # by message
    path: MutableSequence[int]
    has_channel: MutableSequence[bool]
    number: MutableSequence[int]  # in the order sent; NO if not under way
    bytes_left: MutableSequence[float]
    bytes_per_second: MutableSequence[float]
    since: MutableSequence[float]
    ends: MutableSequence[float]
    enters: MutableSequence[float]
    arrived: MutableSequence[float]  # seconds; NO if not yet
    next_in_channel: MutableSequence[int]
    found_in: MutableSequence[int]
    new_rate: MutableSequence[float]
    connected: MutableSequence[int]  # the messages found in the last search, one after the other
    # by path
    first_in_channel: MutableSequence[int]
    last_in_channel: MutableSequence[int]
    # by link
    first_on: MutableSequence[int]
    searched_in: MutableSequence[int]
    rate_left: MutableSequence[float]
    num_growing: MutableSequence[int]
    filling: MutableSequence[int]  # the links on which rates grow, one after the other
    # by message and link of its path
    next_on: MutableSequence[int]
    previous_on: MutableSequence[int]


def initial_traffic(num_messages: int, paths: Paths) -> Traffic:
    """State of messages before any is sent."""
    num_paths, num_links = len(paths.limit), len(paths.link_bytes_per_second)
    return Traffic(
        totals=[0, 0],
        path=[0] * num_messages,
        has_channel=[False] * num_messages,
        number=[NO] * num_messages,
        bytes_left=[0.0] * num_messages,
        bytes_per_second=[0.0] * num_messages,
        since=[0.0] * num_messages,
        ends=[0.0] * num_messages,
        enters=[0.0] * num_messages,
        arrived=[float(NO)] * num_messages,
        next_in_channel=[NO] * num_messages,
        found_in=[0] * num_messages,
        new_rate=[0.0] * num_messages,
        connected=[NO] * num_messages,
        first_in_channel=[NO] * num_paths,
        last_in_channel=[NO] * num_paths,
        first_on=[NO] * num_links,
        searched_in=[0] * num_links,
        rate_left=[0.0] * num_links,
        num_growing=[0] * num_links,
        filling=[NO] * num_links,
        next_on=[NO] * (LINKS * num_messages),
        previous_on=[NO] * (LINKS * num_messages),
    )


def send(
    traffic: Traffic, calendar: Calendar, message: int, path: int, num_bytes: float, seconds: float, in_channel: bool
) -> None:
    """Send a message, which enters its links after a latency in seconds."""
    traffic.path[message] = path
    traffic.has_channel[message] = in_channel
    traffic.number[message] = traffic.totals[0]
    traffic.totals[0] += 1
    traffic.bytes_left[message] = num_bytes
    traffic.bytes_per_second[message] = 0.0
    traffic.enters[message] = calendar.clock[0] + seconds
    schedule(calendar, seconds, ENTERS, message)


def enter(paths: Paths, traffic: Traffic, calendar: Calendar, message: int) -> None:
    """Begin to transmit a message after its latency, or wait for its channel."""
    if traffic.has_channel[message]:
        path = traffic.path[message]
        traffic.next_in_channel[message] = NO
        if traffic.first_in_channel[path] != NO:
            traffic.next_in_channel[traffic.last_in_channel[path]] = message
            traffic.last_in_channel[path] = message
            return
        traffic.first_in_channel[path] = traffic.last_in_channel[path] = message
    transmit(paths, traffic, calendar, message)


def transmit(paths: Paths, traffic: Traffic, calendar: Calendar, message: int) -> None:
    """Put a message on its links."""
    traffic.since[message] = calendar.clock[0]
    path, first_on = traffic.path[message], traffic.first_on
    for k in range(LINKS):
        link, here = paths.links[LINKS * path + k], LINKS * message + k
        if link == NO:
            break
        after = first_on[link]
        traffic.next_on[here], traffic.previous_on[here] = after, NO
        if after != NO:
            traffic.previous_on[after] = here
        first_on[link] = here
    share(paths, traffic, calendar, message)


def share(paths: Paths, traffic: Traffic, calendar: Calendar, message: int) -> None:
    """Set fair rates of all messages that shared links connect to one."""
    num_connected = find_connected(paths, traffic, message)
    if num_connected == 1:
        traffic.new_rate[message] = paths.alone[traffic.path[message]]
    else:
        set_fair_rates(paths, traffic, num_connected)
    for other in traffic.connected[:num_connected]:
        if traffic.new_rate[other] != traffic.bytes_per_second[other]:
            set_rate(traffic, calendar, other, traffic.new_rate[other])


def find_connected(paths: Paths, traffic: Traffic, message: int) -> int:
    """Find the messages that shared links connect to one, in the order sent; return their number."""
    connected, found_in, searched_in = traffic.connected, traffic.found_in, traffic.searched_in
    links, path, first_on, next_on = paths.links, traffic.path, traffic.first_on, traffic.next_on
    traffic.totals[1] += 1
    search = traffic.totals[1]
    found_in[message], connected[0], num_found, index = search, message, 1, 0
    while index < num_found:
        first = LINKS * path[connected[index]]
        index += 1
        for place in range(first, first + LINKS):
            link = links[place]
            if link == NO:
                break
            if searched_in[link] == search:
                continue
            searched_in[link] = search
            on = first_on[link]
            while on != NO:
                other = on // LINKS
                if found_in[other] != search:
                    found_in[other], connected[num_found] = search, other
                    num_found += 1
                on = next_on[on]
    put_in_order(traffic, num_found)
    return num_found


def put_in_order(traffic: Traffic, num_connected: int) -> None:
    """Sort the connected messages in the order sent, in place: by Shell's method, since they are often few."""
    connected, number = traffic.connected, traffic.number
    gap = num_connected // 2
    while gap:
        for index in range(gap, num_connected):
            message, place = connected[index], index
            while place >= gap and number[connected[place - gap]] > number[message]:
                connected[place] = connected[place - gap]
                place -= gap
            connected[place] = message
        gap //= 2


def set_fair_rates(paths: Paths, traffic: Traffic, num_connected: int) -> None:
    """Max-min fair rates of connected messages, by progressive filling, as `max_min_rates` finds them."""
    num_growing, num_filling = num_connected, find_links(paths, traffic, num_connected)
    lowest_limit = float("inf")
    for message in traffic.connected[:num_connected]:
        traffic.new_rate[message] = GROWING
        lowest_limit = min(lowest_limit, paths.limit[traffic.path[message]])
    while num_growing:
        full, level, num_filling = fullest_link(traffic, num_filling)
        own = NO
        if full == NO or lowest_limit <= level:
            own = first_at_limit(paths, traffic, num_connected)
            if full != NO and paths.limit[traffic.path[own]] > level:
                own = NO
        if own != NO:
            stop_growing(paths, traffic, own, paths.limit[traffic.path[own]])
            num_growing -= 1
            continue
        on = traffic.first_on[full]
        while on != NO:
            if traffic.new_rate[on // LINKS] == GROWING:
                stop_growing(paths, traffic, on // LINKS, level)
                num_growing -= 1
            on = traffic.next_on[on]


def find_links(paths: Paths, traffic: Traffic, num_connected: int) -> int:
    """Find the links of connected messages in the order of their first use, empty; return their number."""
    links, path, searched_in = paths.links, traffic.path, traffic.searched_in
    filling, num_growing = traffic.filling, traffic.num_growing
    traffic.totals[1] += 1
    search, num_filling = traffic.totals[1], 0
    for message in traffic.connected[:num_connected]:
        first = LINKS * path[message]
        for place in range(first, first + LINKS):
            link = links[place]
            if link == NO:
                break
            if searched_in[link] != search:
                searched_in[link], num_growing[link], filling[num_filling] = search, 0, link
                num_filling += 1
            num_growing[link] += 1
    for link in filling[:num_filling]:
        traffic.rate_left[link] = paths.link_bytes_per_second[link]
    return num_filling


def fullest_link(traffic: Traffic, num_filling: int) -> tuple[int, float, int]:
    """The link that is full first as all rates on it grow, and the rate at which it is; NO if there is none.

    And the number of links that are still filling: those on which no rate grows are dropped.
    """
    full, level, num_kept = NO, float("inf"), 0
    filling, num_growing, rate_left = traffic.filling, traffic.num_growing, traffic.rate_left
    for link in filling[:num_filling]:
        if num_growing[link]:
            share_of_link = rate_left[link] / num_growing[link]
            if share_of_link < level:
                full, level = link, share_of_link
            filling[num_kept] = link
            num_kept += 1
    return full, level, num_kept


def first_at_limit(paths: Paths, traffic: Traffic, num_connected: int) -> int:
    """The first of the connected messages with the lowest limit of those whose rates grow."""
    first = NO
    for message in traffic.connected[:num_connected]:
        if traffic.new_rate[message] == GROWING and (
            first == NO or paths.limit[traffic.path[message]] < paths.limit[traffic.path[first]]
        ):
            first = message
    return first


def stop_growing(paths: Paths, traffic: Traffic, message: int, bytes_per_second: float) -> None:
    """Fix the rate of a message."""
    traffic.new_rate[message] = bytes_per_second
    first = LINKS * traffic.path[message]
    for place in range(first, first + LINKS):
        link = paths.links[place]
        if link == NO:
            break
        traffic.num_growing[link] -= 1
        traffic.rate_left[link] = max(0.0, traffic.rate_left[link] - bytes_per_second)


def set_rate(traffic: Traffic, calendar: Calendar, message: int, bytes_per_second: float) -> None:
    """Change the rate of a message now, and schedule its arrival at this rate."""
    now = calendar.clock[0]
    through = traffic.bytes_per_second[message] * (now - traffic.since[message])
    traffic.bytes_left[message] = max(0.0, traffic.bytes_left[message] - through)
    traffic.since[message], traffic.bytes_per_second[message] = now, bytes_per_second
    remaining_seconds = whole_ticks(traffic.bytes_left[message] / bytes_per_second)
    traffic.ends[message] = now + remaining_seconds
    schedule(calendar, remaining_seconds, DUE, traffic.number[message] * len(traffic.path) + message)


def arrive_if_due(paths: Paths, traffic: Traffic, calendar: Calendar, about: int) -> None:
    """End a message, unless its rate has changed since this arrival was scheduled."""
    number, message = divmod(about, len(traffic.path))
    if traffic.number[message] != number or traffic.ends[message] != calendar.clock[0]:
        return
    traffic.bytes_left[message], traffic.arrived[message] = 0.0, calendar.clock[0]
    schedule(calendar, 0.0, ARRIVED, message)
    traffic.number[message] = NO
    path, next_on, previous_on = traffic.path[message], traffic.next_on, traffic.previous_on
    for k in range(LINKS):
        link, here = paths.links[LINKS * path + k], LINKS * message + k
        if link == NO:
            break
        before, after = previous_on[here], next_on[here]
        if after != NO:
            previous_on[after] = before
        if before != NO:
            next_on[before] = after
        else:
            traffic.first_on[link] = after
    for k in range(LINKS):
        link = paths.links[LINKS * path + k]
        if link == NO:
            break
        if traffic.first_on[link] != NO:
            share(paths, traffic, calendar, traffic.first_on[link] // LINKS)
    if traffic.has_channel[message]:
        following = traffic.next_in_channel[message]
        traffic.first_in_channel[path] = following
        if following != NO:
            transmit(paths, traffic, calendar, following)
