"""Spreadsheets as Excel writes them."""

import io
import posixpath
import zipfile


def spreadsheet(*sheets, shared=(), names=(), book="xl/workbook.xml"):
    """An .xlsx file of cells as they are in XML; the first sheet is the last of the files, and
    ``book`` names them.
    """
    schemas = "http://schemas.openxmlformats.org"
    main = f'xmlns="{schemas}/spreadsheetml/2006/main"'
    to = f"{schemas}/officeDocument/2006/relationships"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        strings = "".join(f"<si>{text}</si>" for text in shared)
        file.writestr("xl/sharedStrings.xml", f"<sst {main}>{strings}</sst>")
        for number, rows in enumerate(sheets, 1):
            lines = [
                "".join(cell.format(c="ABC"[i], r=r) for i, cell in enumerate(row))
                for r, row in enumerate(rows, 1)
            ]
            text = "".join(f"<row>{line}</row>" for line in lines)
            path = f"xl/worksheets/sheet{len(sheets) - number}.xml"
            file.writestr(path, f"<worksheet {main}><sheetData>{text}</sheetData></worksheet>")
        sheets_of = [
            f'<sheet name="{name}" sheetId="{i + 1}" r:id="rId{i}"/>'
            for i, name in enumerate(names or [f"Sheet{i}" for i in range(len(sheets))])
        ]
        file.writestr(
            book,
            f'<workbook {main} xmlns:r="{to}"><sheets>{"".join(sheets_of)}</sheets></workbook>',
        )
        folder, name = posixpath.split(book)
        parts = [f"/xl/worksheets/sheet{len(sheets) - 1 - i}.xml" for i in range(len(sheets))]
        parts = [posixpath.relpath(part, f"/{folder}") for part in parts]
        for path, kind, targets in (
            ("_rels/.rels", "officeDocument", [book]),
            (posixpath.join(folder, f"_rels/{name}.rels"), "worksheet", parts),
        ):
            relations = [
                f'<Relationship Id="rId{i}" Type="{to}/{kind}" Target="{target}"/>'
                for i, target in enumerate(targets)
            ]
            file.writestr(
                path,
                f'<Relationships xmlns="{schemas}/package/2006/relationships">'
                f"{''.join(relations)}</Relationships>",
            )
    return out.getvalue()
