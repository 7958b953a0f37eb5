"""Write the sample documents that are not plain text: `python docs/make_examples.py` (needs reportlab).

The same bytes every time, so that a fresh copy can be compared with the one in `examples/`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageBreak, PageTemplate, Paragraph, Spacer, Table

EXAMPLES = Path(__file__).parent.parent / "examples"

MANUAL_TITLE = "Operating manual of the Ashworth reflector"
MANUAL: list[tuple[str, list[str | list[list[str]]]]] = [
    ("1 The telescope", [
        "The Ashworth reflector is a Ritchey-Chrétien telescope on an English cross-axis mounting. The moving parts weigh "
        "19.4 tonnes and turn on two films of oil 0.08 millimetres thick, pumped at a pressure of 28 bar. A child can push "
        "the telescope by hand when the pumps run; nothing can move it when they do not, so never try.",
        [["property", "value"],
         ["aperture of the main mirror", "1,520 mm"],
         ["focal length, Cassegrain focus", "12,160 mm (f/8)"],
         ["diameter of the secondary mirror", "465 mm"],
         ["thickness of the main mirror", "254 mm"],
         ["mass of the main mirror", "1,040 kg"],
         ["field of view with the camera of 2012", "23.1 by 23.1 arcminutes"],
         ["fastest slew", "1.8 degrees per second"],
         ["pointing error after calibration", "6 arcseconds (rms)"],
         ["lowest permitted altitude", "12 degrees"]],
    ]),
    ("2 Opening", [
        "Start 90 minutes before sunset, so that mirror and air reach the same temperature. Walk round the dome once and "
        "look: ice on the rail, tools on the floor, an owl in the shutter. Then proceed in this order.",
        "(a) Switch on the oil pumps and wait until the pressure has stayed between 27 and 29 bar for three minutes. "
        "(b) Switch on the drives; the lamp beside each turns from amber to green. (c) Open the upper shutter fully, then the "
        "lower one to the height you need. (d) Open the mirror cover, which takes 40 seconds, and count eight petals. "
        "(e) Start the fans behind the mirror at 30 percent.",
        "If the pressure does not reach 27 bar within five minutes, stop the pumps and read section 6. Oil colder than 4 "
        "degrees is too stiff; the heater in the sump takes about 50 minutes to warm it.",
    ]),
    ("3 Pointing and guiding", [
        "Point at a star of about fifth magnitude within 15 degrees of your target, centre it, and press SYNC. Repeat this "
        "after every movement of more than 60 degrees and whenever the telescope has crossed the meridian. Two complete "
        "pointing models are kept, one for each side; the program chooses between them.",
        "The guide camera takes one picture every 2.5 seconds. It follows stars down to magnitude 14.5 on a clear night, or "
        "12 near the full Moon. If the guide star is lost for more than 30 seconds the exposure is paused, not ended, and "
        "the pause is written into the file's header.",
    ]),
    ("4 Focus", [
        "Focus changes with temperature because the steel tube shrinks: the secondary mirror has to move by 0.137 "
        "millimetres for each degree. The program does this by itself. Refocus by hand at the start of the night, after "
        "changing a filter, and when the seeing monitor and your images disagree by more than 0.3 arcseconds.",
        "The focus routine takes nine exposures of 4 seconds at steps of 0.05 millimetres and fits a parabola to the widths "
        "of the stars. It needs about 80 seconds in all. If it reports fewer than twelve stars, choose another field.",
    ]),
    ("5 The camera", [
        "The camera of 2012 has 4,096 by 4,096 pixels of 15 micrometres, each 0.254 arcseconds on the sky before the reducer "
        "and 0.338 with it. It works at -105 °C. Fill the flask with liquid nitrogen before the night and again after seven "
        "hours; a full flask lasts nine. Read-out takes 48 seconds, or 11 in the fast mode, which doubles the noise from 4.2 "
        "to 8.5 electrons.",
        "Take ten bias frames and seven flat fields in each filter at dusk, when the Sun is between 3 and 7 degrees below the "
        "horizon. The filter wheel holds eight filters; positions 1 to 5 carry U, B, V, R and I, position 6 hydrogen alpha, "
        "position 7 is empty, and position 8 is a blank of aluminium.",
    ]),
    ("6 When something goes wrong", [
        [["code", "meaning", "what to do"],
         ["E04", "oil pressure below 27 bar", "stop the pumps, warm the oil, try once more"],
         ["E11", "drive over current", "balance the telescope; see the chart on the pier"],
         ["E17", "dome and telescope apart by over 4 degrees", "press HOME on the dome panel and wait 3 minutes"],
         ["E23", "camera warmer than -95 °C", "finish the exposure, refill the flask, wait 40 minutes"],
         ["E31", "rain sensor wet", "the shutter closes by itself in 75 seconds; stand clear"],
         ["E40", "no time signal for 10 minutes", "go on; timing is good to 5 milliseconds for a day"]],
        "After two failures of the same kind in one night, close and call the engineer on duty. Nobody has ever been blamed "
        "here for closing too early.",
    ]),
    ("7 Closing", [
        "Park the telescope at the zenith, close the mirror cover, then the shutters, and only then stop the drives and the "
        "pumps. Leave the fans on for 20 minutes. Write the night's report before you leave the building: weather every two "
        "hours, targets, faults, and the level of nitrogen. The morning shift begins at 08:00 and will read it first.",
    ]),
]  # fmt: skip


class Outline(Flowable):
    """An entry in the outline, at the place where it stands."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def wrap(self, *_: float) -> tuple[float, float]:
        return 0, 0

    def draw(self) -> None:
        self.canv.bookmarkPage(self.title)
        self.canv.addOutlineEntry(self.title, self.title, level=0)


def write_manual(path: Path) -> None:
    def furniture(canvas: Canvas, document: BaseDocTemplate) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(22 * mm, A4[1] - 14 * mm, f"{MANUAL_TITLE}, edition 5")
        canvas.drawRightString(A4[0] - 22 * mm, 12 * mm, f"Page {document.page}")

    document = BaseDocTemplate(
        str(path), pagesize=A4, title=MANUAL_TITLE, author="Tarn Fell Observatory Trust", invariant=1
    )
    frame = Frame(22 * mm, 20 * mm, A4[0] - 44 * mm, A4[1] - 42 * mm)
    document.addPageTemplates(PageTemplate(frames=[frame], onPage=furniture))
    styles = getSampleStyleSheet()
    story: list[Flowable] = [Paragraph(MANUAL_TITLE, styles["Title"])]
    for number, (heading, blocks) in enumerate(MANUAL):
        if number and number % 2 == 0:
            story.append(PageBreak())
        story += [Outline(heading), Paragraph(heading, styles["Heading2"])]
        for block in blocks:
            story.append(Paragraph(block, styles["BodyText"]) if isinstance(block, str) else _table(block))
            story.append(Spacer(1, 3 * mm))
    document.build(story)


def _table(rows: list[list[str]]) -> Table:
    table = Table(
        rows, hAlign="LEFT", style=[("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"), ("FONTSIZE", (0, 0), (-1, -1), 9)]
    )
    return table


POLICY: list[tuple[str, str]] = [
    ("Title", "Travel and expenses policy"),
    ("", "This policy applies to trustees, staff and volunteers who travel for the observatory. It was adopted by the "
         "trustees on 8 September 2025 and will be reviewed in September 2027."),
    ("Heading1", "Before you travel"),
    ("", "Journeys that cost less than £60 need no approval. Up to £400 the head of your group approves; beyond that, and "
         "for every journey abroad, the treasurer does, at least three weeks ahead. Volunteers may claim the same "
         "expenses as staff."),
    ("Heading1", "How to travel"),
    ("Heading2", "Trains and buses"),
    ("", "Take the train where it takes less than seven hours from door to door. Second class is the rule; first class is "
         "paid when it is cheaper on the day of booking or when the journey exceeds five hours and you work on board. "
         "Railcards are refunded once they have saved their price."),
    ("Heading2", "Cars"),
    ("", "Your own car is paid with 45 pence a mile, and 5 pence more for each colleague who rides along. Bicycles earn 20 "
         "pence a mile. Parking is refunded; fines are not, whatever the excuse."),
    ("Heading2", "Aeroplanes"),
    ("", "Flights within Great Britain are not paid. Elsewhere economy class is the rule. For each flight the observatory "
         "puts £25 into the fund for peat restoration on the fell."),
    ("Heading1", "Staying and eating"),
    ("", "Hotels are paid up to £110 a night, in London up to £165, breakfast included. Whoever stays with friends may "
         "spend £30 a night on a present. Meals are paid against receipts up to £32 a day, or with a flat £18 without."),
    ("", "Alcohol is never paid, not even at an observing run that went well."),
    ("Heading1", "Claiming"),
    ("", "Send the form with receipts to the treasurer within 30 days of your return. Claims older than 90 days are paid "
         "only if the chair agrees. Payment follows within ten working days. An advance of up to 80 percent of the "
         "expected cost can be had on request."),
    ("Heading1", "Night work away from home"),
    ("", "After an observing night that ended later than 02:00 nobody drives home for more than 30 minutes. The next "
         "hotel night is paid, and the following morning counts as working time."),
]  # fmt: skip

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>'
    '<Override PartName="/word/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.styles+xml"/>'
    '<Override PartName="/docProps/core.xml" ContentType="application/vnd.openxmlformats-package.core-properties+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/><Relationship '
    'Id="r2" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties" Target="docProps/core.xml"/></Relationships>',
    "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>',
    "docProps/core.xml": '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<dc:title>Travel and expenses policy</dc:title><cp:keywords>policy, travel, expenses</cp:keywords>"
    '<dcterms:created xsi:type="dcterms:W3CDTF">2025-09-08T09:00:00Z</dcterms:created></cp:coreProperties>',
    "word/styles.xml": f'<w:styles xmlns:w="{_W}">'
    + "".join(
        f'<w:style w:type="paragraph" w:styleId="{name}"><w:name w:val="{label}"/><w:rPr><w:b/><w:sz w:val="{size}"/></w:rPr></w:style>'
        for name, label, size in (("Title", "Title", 40), ("Heading1", "heading 1", 30), ("Heading2", "heading 2", 26))
    )
    + "</w:styles>",
}  # fmt: skip


def write_policy(path: Path) -> None:
    body = "".join(
        "<w:p>"
        + (f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else "")
        + f'<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'
        for style, text in POLICY
    )
    parts = {**_PARTS, "word/document.xml": f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'}
    with zipfile.ZipFile(path, "w") as archive:
        for name, xml in parts.items():
            entry = zipfile.ZipInfo(name, date_time=(2025, 9, 8, 9, 0, 0))
            archive.writestr(entry, f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{xml}')


if __name__ == "__main__":
    write_manual(EXAMPLES / "telescope-manual.pdf")
    write_policy(EXAMPLES / "travel-policy.docx")
