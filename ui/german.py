"""German for the page's fixed texts. What is missing here is shown in English."""

from ui.training_pictures import MAX_PICTURES

GERMAN = {
    # tabs and headings
    "Generate": "Erzeugen",
    "Judge": "Beurteilen",
    "Export": "Ausgeben",
    "Train": "Trainieren",
    "# Lily\nPictures with adapters that share what they learn across layers.": "# Lily\nBilder mit Adaptern, deren "
    "Schichten sich teilen, was sie lernen.",
    "### Adapters": "### Adapter",
    "### Settings": "### Einstellungen",
    "### Pictures\nThree to ten of one subject, with different backgrounds, light and angles. Captions in text files "
    "of the same names are read too.": "### Bilder\nDrei bis zehn von einem Motiv, mit verschiedenen "
    "Hintergründen, Licht und Blickwinkeln. Beschreibungen in gleichnamigen Textdateien werden auch gelesen.",
    "Settings": "Einstellungen",
    # generate
    "Prompt": "Prompt",
    "Negative prompt": "Negativer Prompt",
    "what it should not show": "was nicht zu sehen sein soll",
    "what the picture shows": "was das Bild zeigt",
    "a cat on a red background": "a cat on a red background",
    "Interrupt": "Abbrechen",
    "Skip": "Überspringen",
    "Pictures": "Bilder",
    "Steps": "Schritte",
    "Guidance": "Guidance",
    "Scheduler": "Scheduler",
    "Width": "Breite",
    "Height": "Höhe",
    "Seed": "Seed",
    "Seed (-1: a new one)": "Seed (-1: ein neuer)",
    "Seed (-1: new)": "Seed (-1: neu)",
    "Keep the last seed": "Letzten Seed behalten",
    "Live preview": "Vorschau",
    "Every so many steps": "Alle so viele Schritte",
    "Rescan": "Neu einlesen",
    "Folder": "Ordner",
    "Search adapters": "Adapter suchen",
    "Click a card to use its adapter.": "Eine Karte anklicken, um ihren Adapter zu benutzen.",
    "Add an adapter (.safetensors)": "Adapter hinzufügen (.safetensors)",
    "By block and step": "Nach Block und Schritt",
    "Weight by block and step": "Gewicht nach Block und Schritt",
    "weight": "Gewicht",
    "Weight": "Gewicht",
    "Choose from the list, or write a Hub id such as owner/name.": "Aus der Liste wählen, oder eine Hub-Kennung wie "
    "owner/name schreiben.",
    "Load this base model": "Dieses Basismodell laden",
    "Loaded now": "Jetzt geladen",
    "Recipe of the picture": "Rezept des Bildes",
    "Settings from a saved picture": "Einstellungen aus einem gespeicherten Bild",
    # keep
    "History": "Verlauf",
    "Day": "Tag",
    "Search in prompts": "In Prompts suchen",
    "Delete": "Löschen",
    "Delete chosen": "Gewählte löschen",
    "Use its settings": "Seine Einstellungen benutzen",
    "Presets": "Vorlagen",
    "Saved settings with adapters": "Gespeicherte Einstellungen mit Adaptern",
    "Name of a preset": "Name einer Vorlage",
    "Save these settings": "Diese Einstellungen speichern",
    "Load": "Laden",
    "Styles": "Stile",
    "Name of a style": "Name eines Stils",
    "Save the prompts as a style": "Die Prompts als Stil speichern",
    "Styles and earlier prompts": "Stile und frühere Prompts",
    "Earlier prompts": "Frühere Prompts",
    "Added to the prompts when you generate.": "Wird beim Erzeugen an die Prompts angehängt.",
    "Ready-made": "Fertige",
    # judge
    "Compare": "Vergleichen",
    "Grid": "Raster",
    "Experts": "Experten",
    "Blocks": "Blöcke",
    "Values": "Werte",
    "Stop": "Anhalten",
    "Run": "Los",
    "Draw the grid": "Raster zeichnen",
    "The grid": "Das Raster",
    "Watch the experts": "Experten beobachten",
    "Switch the blocks off": "Blöcke ausschalten",
    "Which experts answer": "Welche Experten antworten",
    "What each block does": "Was jeder Block tut",
    "X, across": "X, waagerecht",
    "Y, down": "Y, senkrecht",
    "Z, one sheet each": "Z, je ein Blatt",
    "The picture that was drawn": "Das gezeichnete Bild",
    "Base model, and with the adapters": "Basismodell, und mit den Adaptern",
    "Take the settings of Generate": "Einstellungen von Erzeugen übernehmen",
    "The same seed with and without the adapters, under one slider.": "Derselbe Seed mit und ohne Adapter, unter einem "
    "Schieber.",
    "Switches the blocks of the first adapter off, one at a time, and shows how much the picture changes.": "Schaltet "
    "die Blöcke des ersten Adapters einzeln aus und zeigt, wie sehr sich das Bild ändert.",
    **{f"Adapter {number}": f"Adapter {number}" for number in range(1, 5)},
    "what the pictures show": "was die Bilder zeigen",
    "A picture for every combination of values, at most 64. Numbers: `0.5, 1`, or `0-1:5` for five from 0 to 1. Words: "
    "the first is replaced in the prompt by each.": "Ein Bild für jede Verbindung von Werten, höchstens 64. Zahlen: "
    "`0.5, 1`, oder `0-1:5` für fünf von 0 bis 1. Wörter: Das erste wird im Prompt durch jedes ersetzt.",
    "Lily's routers choose, for every input, which experts of the first adapter answer. This draws one picture and "
    "shows what they chose, layer by layer and step by step.": "Lilys Router wählen für jede Eingabe, welche Experten "
    "des ersten Adapters antworten. Dies zeichnet ein Bild und zeigt ihre Wahl, Schicht für Schicht, Schritt für "
    "Schritt.",
    # export
    "A Lily adapter chooses its experts anew for every input. Baking watches what it chooses on your prompts and\n"
    "writes the one fixed update that comes closest: a single file, also for programs that know only LoRA.": "Ein "
    "Lily-Adapter wählt seine Experten für jede Eingabe neu. Einbacken beobachtet, was er bei deinen Prompts wählt, "
    "und schreibt die eine feste Änderung, die dem am nächsten kommt: eine Datei, auch für Programme, die nur LoRA "
    "kennen.",
    "what the adapter is for, with its trigger words": "wofür der Adapter da ist, mit seinen Auslösewörtern",
    "Bake and write": "Einbacken und schreiben",
    "Base model, adapters, baked": "Basismodell, Adapter, eingebacken",
    "Name of the file": "Name der Datei",
    "The new file": "Die neue Datei",
    "Write a": "Schreibe",
    "Rank": "Rang",
    "Rank (0: as it is)": "Rang (0: wie er ist)",
    "Seeds": "Seeds",
    "Prompts to bake on, one a line": "Prompts zum Einbacken, einer je Zeile",
    "Other prompts to measure with, one a line": "Andere Prompts zum Messen, einer je Zeile",
    "empty: the same prompts with other seeds": "leer: dieselben Prompts mit anderen Seeds",
    "What is lost by baking is measured and shown here.": "Was beim Einbacken verloren geht, wird gemessen und hier "
    "gezeigt.",
    # train
    "Pictures of the subject": "Bilder des Motivs",
    "Or a folder of the server": "Oder ein Ordner des Servers",
    "Rare word": "Seltenes Wort",
    "Class": "Klasse",
    "dog": "dog",
    "Start training": "Training starten",
    "Stop and save": "Anhalten und sichern",
    "Go on": "Weitermachen",
    "Add to adapters": "Zu den Adaptern",
    "Learning rate (0: auto)": "Lernrate (0: von selbst)",
    "Resolution": "Auflösung",
    "Prompt of the sample pictures": "Prompt der Probebilder",
    "a, the rare word and the class": "a, das seltene Wort und die Klasse",
    "Samples: without the adapter and with it": "Proben: ohne den Adapter und mit ihm",
    "Trainings": "Trainings",
    **{f"Caption {number}": f"Beschreibung {number}" for number in range(1, MAX_PICTURES + 1)},
    **{f"Crop {number}": f"Ausschnitt {number}" for number in range(1, MAX_PICTURES + 1)},
}
