"""Documents of getting about: a station's timetable, islands and their harbours, guest houses."""

from __future__ import annotations

from datetime import date

from llmopt.workload.korean_qa.model import Ask, Field, Genre
from llmopt.workload.korean_qa.pools import STEMS, clock, combined, day, money, number, person, plain_number

__all__ = ["GENRES"]

_TRAINS = Genre(
    key="trains",
    titles=("평일 열차 시간표", "역 안내판에 적힌 열차 편", "임시 열차 운행 안내"),
    intros=(
        "오늘 이 역에서 출발하는 열차는 다음과 같다.",
        "역무원이 알려 준 운행 계획이다.",
        "아래 시각은 모두 출발역을 기준으로 한다.",
    ),
    fields=(
        Field(key="name", label="열차", draw=combined(STEMS, ("호", "급행", "특급"))),
        Field(key="leaves", label="출발 시각", draw=clock(5 * 60 + 30, 21 * 60, 7), aliases="clock"),
        Field(key="ride", label="걸리는 시간", draw=number("분", 35, 175), aliases="number"),
        Field(key="fare", label="요금", draw=money(4200, 38900, 100), aliases="number"),
        Field(key="platform", label="승강장", draw=number("번 승강장", 1, 38), aliases="number"),
    ),
    rows=(
        "{name:은} {leaves}에 {platform}에서 떠나 {goal}까지 간다. 걸리는 시간은 {ride}이고 요금은 {fare}이다.",
        "{goal:으로} 가는 {name:은} {platform}에서 {leaves}에 출발하며, {ride:이} 걸린다. 요금은 {fare}이다.",
        "{fare:을} 내면 {name:을} 타고 {goal}까지 갈 수 있다. {leaves}에 {platform}에서 떠나고 {ride} 뒤에 닿는다.",
    ),
    group_fields=(
        Field(key="goal", label="종착역", draw=combined(STEMS, ("역",))),
        Field(key="master", label="역장", draw=person),
        Field(key="opened", label="문을 연 해", draw=plain_number("년", 1931, 2019), aliases="number"),
    ),
    groups=(
        "{goal:은} {opened}에 문을 열었고 역장은 {master}이다.",
        "{master:이} 역장으로 있는 {goal:은} {opened}에 문을 열었다.",
    ),
    asks=(
        Ask(key="fare", kind="span", text="{name}의 요금은 얼마인가요?", op="get", field="fare"),
        Ask(key="by_fare", kind="span", text="요금이 {value}인 열차는 무엇인가요?", op="who", field="fare"),
        Ask(
            key="platform",
            kind="lookup",
            text="{name:을} 타려면 어느 승강장으로 가야 하나요?",
            op="get",
            field="platform",
        ),
        Ask(key="leaves", kind="lookup", text="{name:은} 언제 출발하나요?", op="get", field="leaves"),
        Ask(
            key="hop_master",
            kind="two_hop",
            text="{name:이} 도착하는 종착역의 역장은 누구인가요?",
            op="hop",
            field="master",
        ),
        Ask(
            key="hop_opened",
            kind="two_hop",
            text="{name}의 종착역은 몇 년에 문을 열었나요?",
            op="hop",
            field="opened",
        ),
        Ask(
            key="arrives",
            kind="date",
            text="{name:은} 종착역에 몇 시 몇 분에 도착하나요?",
            op="arrive",
            field="leaves",
            to="ride",
        ),
        Ask(
            key="late",
            kind="date",
            text="{name:이} {by} 늦게 출발했다면, 실제 출발 시각은 언제인가요?",
            op="shift_minutes",
            field="leaves",
            shifts=(8, 13, 17, 24, 36),
        ),
        Ask(key="count", kind="count", text="{group}까지 가는 열차는 모두 몇 편인가요?", op="count_in", unit="편"),
        Ask(
            key="first",
            kind="compare",
            text="가장 먼저 출발하는 열차는 무엇인가요?",
            op="extreme",
            field="leaves",
            which="min",
        ),
        Ask(
            key="slower",
            kind="compare",
            text="{a:과} {b} 중에서 시간이 더 오래 걸리는 열차는 무엇인가요?",
            op="pair",
            field="ride",
            which="max",
        ),
        Ask(key="driver", kind="unanswerable", text="{name:을} 운전하는 기관사는 누구인가요?", op="withheld"),
        Ask(key="choice_fare", kind="choice", text="{name}의 요금으로 알맞은 것은 무엇인가요?", op="get", field="fare"),
    ),
)

_ISLANDS = Genre(
    key="islands",
    titles=("섬 여행 안내", "바닷길로 만나는 섬들", "섬 지역 통계"),
    intros=(
        "여객선으로 갈 수 있는 섬을 소개한다.",
        "섬마다 크기와 사람 수가 다르다.",
        "해마다 펴내는 섬 안내서에서 옮긴 내용이다.",
    ),
    fields=(
        Field(key="name", label="섬", draw=combined(STEMS, ("도", "섬"))),
        Field(key="area", label="넓이", draw=number("헥타르", 45, 980), aliases="number"),
        Field(key="people", label="주민", draw=number("명", 62, 1980), aliases="number"),
        Field(key="lamp", label="등대를 세운 해", draw=plain_number("년", 1908, 1999), aliases="number"),
        Field(key="chief", label="이장", draw=person),
    ),
    rows=(
        "{name:은} 넓이가 {area}이며 주민은 {people}이다. {lamp}에 등대를 세웠고 이장은 {chief}이다. 배는 {port}에서 뜬다.",
        "{port}에서 배를 타면 {name}에 닿는다. {chief} 이장과 주민 {people:이} 사는 이 섬은 넓이가 {area}, 등대는 {lamp}에 섰다.",
        "등대가 {lamp}에 선 {name}에는 {people:이} 산다. 이장은 {chief}, 넓이는 {area}이고 {port}에서 배가 다닌다.",
    ),
    group_fields=(
        Field(key="port", label="항구", draw=combined(STEMS, ("항", "나루", "포구"))),
        Field(key="boats", label="여객선 수", draw=number("척", 2, 17), aliases="number"),
        Field(key="officer", label="항만소장", draw=person),
    ),
    groups=(
        "{port}에는 여객선이 {boats} 있고 항만소장은 {officer}이다.",
        "{officer:이} 항만소장인 {port:은} 여객선 {boats:을} 두고 있다.",
    ),
    asks=(
        Ask(key="chief", kind="span", text="{name}의 이장은 누구인가요?", op="get", field="chief"),
        Ask(
            key="by_chief",
            kind="span",
            text="{value:이} 이장으로 있는 섬의 이름은 무엇인가요?",
            op="who",
            field="chief",
        ),
        Ask(key="lamp", kind="lookup", text="{name}의 등대는 몇 년에 세워졌나요?", op="get", field="lamp"),
        Ask(key="people", kind="lookup", text="{name}에는 주민이 몇 명 사나요?", op="get", field="people"),
        Ask(
            key="hop_officer",
            kind="two_hop",
            text="{name:으로} 가는 배가 뜨는 항구의 항만소장은 누구인가요?",
            op="hop",
            field="officer",
        ),
        Ask(
            key="hop_boats",
            kind="two_hop",
            text="{name:으로} 가는 배가 뜨는 항구에는 여객선이 몇 척 있나요?",
            op="hop",
            field="boats",
        ),
        Ask(
            key="years",
            kind="date",
            text="2025년은 {name}에 등대가 선 지 몇 년째 되는 해인가요? (세운 해는 0년째로 셉니다.)",
            op="years_until",
            field="lamp",
            shifts=(2025,),
            unit="년",
        ),
        Ask(key="count", kind="count", text="{group}에서 배로 갈 수 있는 섬은 몇 곳인가요?", op="count_in", unit="곳"),
        Ask(
            key="count_people",
            kind="count",
            text="주민이 {value} 이상인 섬은 몇 곳인가요?",
            op="count_over",
            field="people",
            unit="곳",
        ),
        Ask(key="widest", kind="compare", text="가장 넓은 섬은 어디인가요?", op="extreme", field="area", which="max"),
        Ask(
            key="more",
            kind="compare",
            text="{a}의 주민은 {b}의 주민보다 몇 명 더 많은가요?",
            op="difference",
            field="people",
            unit="명",
        ),
        Ask(key="peak", kind="unanswerable", text="{name}에서 가장 높은 봉우리의 높이는 얼마인가요?", op="withheld"),
        Ask(key="absent", kind="unanswerable", text="{stranger}의 주민은 몇 명인가요?", op="absent"),
        Ask(
            key="choice_old",
            kind="choice",
            text="등대가 가장 오래된 섬은 다음 중 어디인가요?",
            op="extreme",
            field="lamp",
            which="min",
        ),
    ),
)

_LODGING = Genre(
    key="lodging",
    titles=("민박집 예약 장부", "마을 숙소 안내", "휴가철 숙소 목록"),
    intros=(
        "마을에서 묵을 수 있는 집은 다음과 같다.",
        "예약을 받는 숙소를 한데 모았다.",
        "주인들이 직접 알려 온 내용이다.",
    ),
    fields=(
        Field(key="name", label="숙소", draw=combined(STEMS, ("민박", "한옥", "펜션", "쉼터"))),
        Field(key="host", label="주인", draw=person),
        Field(key="price", label="하룻밤 요금", draw=money(38000, 149000, 500), aliases="number"),
        Field(key="opens", label="예약 시작일", draw=day(date(2025, 4, 1), date(2025, 7, 20)), aliases="date"),
        Field(key="beds", label="정원", draw=number("명", 2, 29), aliases="number"),
    ),
    rows=(
        "{name:은} {host:이} 꾸리는 집으로 하룻밤에 {price}이다. {beds}까지 묵을 수 있고 예약은 {opens}부터 받는다. {village}에 있다.",
        "{village}의 {name:은} 정원이 {beds}이다. 주인 {host:은} {opens}부터 예약을 받으며 하룻밤 요금은 {price}이다.",
        "하룻밤에 {price:을} 받는 {name:은} {village}에 있다. 주인은 {host}, 정원은 {beds}, 예약 시작은 {opens}이다.",
    ),
    group_fields=(
        Field(key="village", label="마을", draw=combined(STEMS, ("마을", "골", "리"))),
        Field(key="walk", label="정류장까지", draw=number("분", 3, 28), aliases="number"),
        Field(key="cook", label="식당 주인", draw=person),
    ),
    groups=(
        "{village:은} 정류장에서 걸어서 {walk:이} 걸리고, 마을 식당은 {cook:이} 연다.",
        "{cook:이} 식당을 하는 {village}까지는 정류장에서 걸어서 {walk:이} 걸린다.",
    ),
    asks=(
        Ask(key="host", kind="span", text="{name}의 주인은 누구인가요?", op="get", field="host"),
        Ask(key="by_host", kind="span", text="{value:이} 꾸리는 숙소는 어디인가요?", op="who", field="host"),
        Ask(key="price", kind="lookup", text="{name}에서 하룻밤 묵는 데 얼마가 드나요?", op="get", field="price"),
        Ask(
            key="hop_cook",
            kind="two_hop",
            text="{name:이} 있는 마을의 식당 주인은 누구인가요?",
            op="hop",
            field="cook",
        ),
        Ask(
            key="hop_walk",
            kind="two_hop",
            text="{name:이} 있는 마을까지 정류장에서 걸어서 몇 분이 걸리나요?",
            op="hop",
            field="walk",
        ),
        Ask(
            key="deposit",
            kind="date",
            text="{name}에 예약 시작일로부터 {by} 뒤에 전화했다면, 전화한 날은 몇 월 며칠인가요?",
            op="shift_days",
            field="opens",
            shifts=(4, 9, 12, 18, 25),
        ),
        Ask(key="count", kind="count", text="{group}에 있는 숙소는 모두 몇 곳인가요?", op="count_in", unit="곳"),
        Ask(
            key="cheapest",
            kind="compare",
            text="하룻밤 요금이 가장 싼 숙소는 어디인가요?",
            op="extreme",
            field="price",
            which="min",
        ),
        Ask(
            key="gap",
            kind="compare",
            text="{a}의 하룻밤 요금은 {b}의 요금보다 얼마 더 비싼가요?",
            op="difference",
            field="price",
            unit="원",
        ),
        Ask(
            key="pets", kind="unanswerable", text="{name}에 반려동물을 데려가려면 얼마를 더 내야 하나요?", op="withheld"
        ),
        Ask(key="choice_host", kind="choice", text="{name}의 주인은 다음 중 누구인가요?", op="get", field="host"),
    ),
)

GENRES = (_TRAINS, _ISLANDS, _LODGING)
