"""Which packets of a clip the wanted frames need, so that the rest is not even decoded.

Belongs here: reading from MPEG-4 part 2's packets (XviD, DivX: UCF101's clips) what each depends on, and of H.264 which
frame each packet holds: there the decoder itself knows which frames no other needs. Decoding is `video/decode.py`'s;
clips of other codecs it decodes from their start on.

An I picture stands alone, a P (or S) picture needs the reference (I or P) before it, a B picture the two before it as
they are stored, which are the ones around it as they are shown. So B pictures that nobody wants and, before an I
picture, what follows the last wanted frame can be left out, bit for bit (ISO/IEC 14496-2).
"""

from collections.abc import Sequence

import av
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

CODEC = "mpeg4"
SKIPPING = "h264"
"""Its decoder can leave out frames that no other needs, told packet by packet."""
_PICTURE = b"\0\0\1\xb6"  # start code of a picture; the next two bits are its type
_TYPES = "IPBS"
_SMALLEST = 8  # bytes of a picture; less may be one that is not coded but only says "as before", and decodes to nothing


def needed_packets(
    packets: Sequence[av.Packet], stream: VideoStream, wanted: Sequence[int]
) -> tuple[list[av.Packet], list[int]] | None:
    """The packets that the `wanted` frames need, in order, and the numbers of the frames that come out of these.

    `packets` are all of a clip, from its start; don't use them afterwards. None where it can't be told, as of packets
    that hold anything but one coded picture. Whether as many frames came out is for the caller to check.
    """
    found = [_pictures(packet) for packet in packets]
    if any(len(pictures) > 1 for pictures in found):
        # "Packed": a P and a B picture share a packet, and an empty one follows, for the sake of Video for Windows.
        unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
        packets = [part for packet in (*packets, None) for part in unpack.filter(packet)]
        found = [_pictures(packet) for packet in packets]
    if not all(len(pictures) == 1 and pictures != "?" for pictures in found):
        return None
    shown: list[int] = []  # places of packets, as their frames are shown
    needs: list[list[int]] = []
    references: list[int] = []
    for place, picture in enumerate(found):
        count = {"I": 0, "B": 2}.get(picture, 1)
        if len(references) < count:
            return None
        needs.append(references[-count:] if count else [])
        if picture == "B":
            shown.append(place)
        else:  # a reference is shown when the next one has come
            shown += references[-1:]
            references.append(place)
    shown += references[-1:]
    kept = {shown[number] for number in wanted}
    for place in reversed(range(len(packets))):
        if place in kept:
            kept.update(needs[place])
    return [packets[place] for place in sorted(kept)], [n for n, place in enumerate(shown) if place in kept]


def shown_times(packets: Sequence[av.Packet]) -> list[int] | None:
    """When each frame is shown, in order: the n-th frame of the clip has the n-th time.

    None where that can't be told: times are missing or twice, a packet is not to be shown, or the first frame is not
    the first stored one, whose neighbours then may not decode.
    """
    times = [packet.pts for packet in packets if packet.pts is not None]
    known = len(set(times)) == len(packets) and not any(packet.is_discard for packet in packets)
    if not known or not packets[0].is_keyframe or times[0] != min(times):
        return None
    return sorted(times)


def _pictures(packet: av.Packet) -> str:
    """The types of the pictures in a packet: "" for none, "P", "PB" where it is packed; "?" if it may not be coded."""
    data = bytes(packet)
    types, at = "", data.find(_PICTURE)
    while 0 <= at < len(data) - len(_PICTURE):
        start, at = at + len(_PICTURE), data.find(_PICTURE, at + len(_PICTURE))
        whole = (at if at >= 0 else len(data)) - start >= _SMALLEST
        types += _TYPES[data[start] >> 6] if whole else "?"
    return types
