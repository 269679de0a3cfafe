"""German for what the page says while it runs, by the English text.

``{}`` stands for what changes, in the same order; in the German, ``{m}`` where it is a message of ours itself.
"""

GERMAN_MESSAGES = {
    "Waiting ...": "Wartet ...",
    "Not waiting any more.": "Wartet nicht mehr.",
    "Starting ...": "Beginnt ...",
    "That did not work.": "Das ging nicht.",
    "That did not work ({}). The terminal of the page says more.": "Das ging nicht ({}). Mehr im Terminal.",
    "Done.": "Fertig.",
    "Done: {} picture.": "Fertig: {} Bild.",
    "Done: {} pictures.": "Fertig: {} Bilder.",
    "Stopped.": "Angehalten.",
    "Stopped: {} of {} pictures are done.": "Angehalten: {} von {} Bildern sind fertig.",
    "Interrupted: {} of {} pictures are done.": "Abgebrochen: {} von {} Bildern sind fertig.",
    "Picture {} of {} · step {} of {} · {} left": "Bild {} von {} · Schritt {} von {} · noch {}",
    "Picture {} of {} · step {} of {}": "Bild {} von {} · Schritt {} von {}",
    "{} · step {} of {}": "{m} · Schritt {} von {}",
    "Watching the routers of '{}'": "Beobachtet die Router von '{}'",
    "Merging the layers": "Mischt die Schichten",
    "Watching, baking and measuring: {}": "Beobachtet, backt ein und misst: {}",
    "Added {}.": "{} ist hinzugefügt.",
    "The picture is deleted.": "Das Bild ist gelöscht.",
    "{} shows this picture now.": "{} zeigt jetzt dieses Bild.",
    "The preset {} is saved.": "Die Vorlage {} ist gespeichert.",
    "The style {} is saved.": "Der Stil {} ist gespeichert.",
    "Saved in the output folder, each with its recipe. First seed: {}.": "Im Ausgabeordner gespeichert, jedes mit "
    "seinem Rezept. Erster Seed: {}.",
    "The base model does not read the end of this prompt:": "Das Basismodell liest das Ende des Prompts nicht:",
    "The safety checker of the base model blackened a picture.": "Die Sicherheitsprüfung des Basismodells hat ein "
    "Bild geschwärzt.",
    "{} on {}, {} a safety checker.": "{} auf {}, {m} Sicherheitsprüfung.",
    "with": "mit",
    "without": "ohne",
    "Base model: {}": "Basismodell: {}",
    "{} to {} of {} in use": "{} bis {} von {} Adaptern in Gebrauch",
    "No adapter is found.": "Kein Adapter gefunden.",
    "All folders": "Alle Ordner",
    "All settings are those of the picture.": "Alle Einstellungen sind die des Bildes.",
    "Settings restored from the picture.": "Die Einstellungen sind die des Bildes.",
    "The preset {} is set.": "Die Vorlage {} ist eingestellt.",
    "Careful": "Vorsicht",
    "Now choose another picture, here or in the history, to lay it over this one.": "Jetzt ein anderes Bild wählen, "
    "hier oder im Verlauf, das über dieses gelegt wird.",
    "Compare": "Vergleichen",
    "Stop comparing": "Nicht mehr vergleichen",
    "Blocks: {}": "Blöcke: {}",
    # adapters and base models
    "**No adapters yet.** Train one with `python train_scripts/train_dreambooth_lily.py`, put its\n`.safetensors` "
    "file into the adapters folder; it is listed by itself.": "**Noch keine Adapter.** Trainiere einen mit `python "
    "train_scripts/train_dreambooth_lily.py` und lege seine\n`.safetensors`-Datei in den Ordner der Adapter; sie "
    "erscheint von selbst.",
    "**No adapters yet.** Train one with `python train_scripts/train_dreambooth_lily.py`, put its\n`.safetensors` "
    "file into the adapters folder; it is listed by itself, or drop the file below.": "**Noch keine Adapter.** "
    "Trainiere einen mit `python train_scripts/train_dreambooth_lily.py` und lege seine\n`.safetensors`-Datei in den "
    "Ordner der Adapter; sie erscheint von selbst. Oder wirf die Datei unten hinein.",
    "At most {} adapters can be in use. Take one out first.": "Höchstens {} Adapter können benutzt werden. Erst einen "
    "herausnehmen.",
    "The adapter '{}' cannot be used: {}": "Der Adapter '{}' ist nicht benutzbar: {m}",
    "The adapter '{}' has a picture that was put there by hand; it stays.": "Der Adapter '{}' hat ein Bild, das von "
    "Hand dort abgelegt wurde; es bleibt.",
    "This adapter is not in the list any more. Press Rescan.": "Dieser Adapter ist nicht mehr in der Liste. Bitte neu "
    "einlesen.",
    "The file of the adapter '{}' is gone. Press Rescan.": "Die Datei des Adapters '{}' ist weg. Bitte neu einlesen.",
    "The folder has too many files of this name.": "Der Ordner hat zu viele Dateien dieses Namens.",
    "The folder has too many files of this name. Choose another name.": "Der Ordner hat zu viele Dateien dieses "
    "Namens. Bitte einen anderen wählen.",
    "Only {} files can be added.": "Nur {}-Dateien können hinzugefügt werden.",
    "The file is larger than {} GB.": "Die Datei ist größer als {} GB.",
    "The file is larger than {} MB.": "Die Datei ist größer als {} MB.",
    "Adding files through the page is off while it listens to other machines.": "Dateien können nicht über die Seite "
    "hinzugefügt werden, solange andere Rechner sie erreichen.",
    "A card shows what its adapter does alone: take a picture with one adapter of the list.": "Eine Karte zeigt, was "
    "ihr Adapter allein tut: Bitte ein Bild mit einem Adapter der Liste nehmen.",
    "The base model '{}' ({}) does not make pictures from text.": "Das Basismodell '{}' ({}) macht keine Bilder aus "
    "Text.",
    "The base model '{}' could not be loaded: {}": "Das Basismodell '{}' ließ sich nicht laden: {}",
    "There is no base model of that name. Choose one from the list.": "Es gibt kein Basismodell dieses Namens. Bitte "
    "eines aus der Liste wählen.",
    "There is no base model of that name. Choose one from the list. Or write a Hub id such as owner/name.":
    "Es gibt kein Basismodell dieses Namens. Bitte eines aus der Liste wählen. Oder eine Hub-Kennung wie owner/name "
    "schreiben.",
    "Another base model was loaded meanwhile. Look at the settings and try again.": "Inzwischen wurde ein anderes "
    "Basismodell geladen. Bitte die Einstellungen ansehen und noch einmal versuchen.",
    "The graphics card ran out of memory. Choose a smaller size.": "Der Speicher der Grafikkarte reicht nicht. Bitte "
    "eine kleinere Größe wählen.",
    "A link that leads out of the folder is not followed.": "Einem Verweis aus dem Ordner hinaus wird nicht gefolgt.",
    "The file is damaged or not a safetensors file.": "Die Datei ist beschädigt oder keine safetensors-Datei.",
    # settings
    "steps": "Schritte",
    "number of pictures": "Zahl der Bilder",
    "seed": "Seed",
    "preview": "Vorschau",
    "width": "Breite",
    "height": "Höhe",
    "guidance": "Guidance",
    "prompt": "Prompt",
    "negative prompt": "Negativer Prompt",
    "weight of an adapter": "Gewicht eines Adapters",
    "resolution": "Auflösung",
    "rank": "Rang",
    "learning rate": "Lernrate",
    "At most {} characters are read.": "Höchstens {} Zeichen werden gelesen.",
    "At most {} blocks can be named.": "Höchstens {} Blöcke können genannt werden.",
    "At most {} blocks, each from {} to {}.": "Höchstens {} Blöcke, jeder von {} bis {}.",
    "Weights go from {} to {}.": "Gewichte gehen von {} bis {}.",
    "The {} must be a number from {} to {}.": "{m}: eine Zahl von {} bis {} ist nötig.",
    "The {} must be a whole number.": "{m}: eine ganze Zahl ist nötig.",
    "The {} must be a multiple of {} pixels for this base model.": "{m}: dieses Basismodell braucht ein Vielfaches von "
    "{} Pixeln.",
    "The {} must be a text of at most {} characters.": "{m}: höchstens {} Zeichen sind erlaubt.",
    "The {} needs a number.": "{m}: eine Zahl ist nötig.",
    "{} adapters are on; at most {} can be mixed.": "{} Adapter sind an; höchstens {} können gemischt werden.",
    "{} adapters are on; the first {} are taken.": "{} Adapter sind an; die ersten {} werden genommen.",
    "This base model has no scheduler of that name; there is {}.": "Dieses Basismodell hat keinen Scheduler dieses "
    "Namens; es gibt {}.",
    "There is no scheduler '{}'; there is {}.": "Es gibt keinen Scheduler '{}'; es gibt {}.",
    "There is no blend '{}'; there is {}.": "Es gibt keine Mischung '{}'; es gibt {}.",
    "The weight of '{}' is longer than {} characters.": "Das Gewicht von '{}' ist länger als {} Zeichen.",
    "The weight of '{}': {}": "Das Gewicht von '{}': {}",
    "The weight of '{}' changes over the steps, which '{}' cannot merge. Give it one weight, or choose the blend "
    "'{}'.": "Das Gewicht von '{}' ändert sich über die Schritte; '{}' kann das nicht mischen. Bitte ein festes "
    "Gewicht geben oder die Mischung '{}' wählen.",
    "The weight of '{}' changes over the steps, which no file can hold. Give it one weight.": "Das Gewicht von '{}' "
    "ändert sich über die Schritte; das kann keine Datei. Bitte ein festes Gewicht geben.",
    "Every adapter needs a weight, such as 1 or 0.8.": "Jeder Adapter braucht ein Gewicht, etwa 1 oder 0.8.",
    "An adapter is chosen twice. Give it one weight in one row.": "Ein Adapter ist doppelt gewählt. Bitte ein Gewicht "
    "in einer Zeile geben.",
    # what is kept
    "Give it a name first.": "Bitte erst einen Namen geben.",
    "There are {} presets already. Delete some first.": "Es gibt schon {} Vorlagen. Bitte erst welche löschen.",
    "There is no preset of this name any more.": "Es gibt keine Vorlage dieses Namens mehr.",
    "The preset {} is damaged. {}": "Die Vorlage {} ist beschädigt. {m}",
    "{} has something that cannot be read; mend it or move it away first.": "In {} steht etwas, das sich nicht lesen "
    "lässt. Bitte erst ausbessern oder die Datei verschieben.",
    "The base model '{}' does not fit onto the graphics card: {}": "Das Basismodell '{}' passt nicht auf die "
    "Grafikkarte: {}",
    "There are {} styles already. Delete some first.": "Es gibt schon {} Stile. Bitte erst welche löschen.",
    "The styles have become too long. Delete some first.": "Die Stile sind zu lang geworden. Bitte erst welche "
    "löschen.",
    "Write the style's prompt or negative prompt first.": "Bitte erst den Prompt oder den negativen Prompt des Stils "
    "schreiben.",
    "This picture is not there any more.": "Dieses Bild gibt es nicht mehr.",
    "This picture has no recipe in it. Pictures saved by this page have one.": "In diesem Bild ist kein Rezept. "
    "Bilder, die diese Seite gespeichert hat, haben eines.",
    "This picture has text in it, but no settings that can be read.": "In diesem Bild steht Text, aber es sind keine "
    "lesbaren Einstellungen darin.",
    "This is not a PNG picture that can be read.": "Das ist kein lesbares PNG-Bild.",
    "This is not a PNG picture that can be read, nor JPEG or WebP.": "Das ist kein lesbares Bild (PNG, JPEG oder "
    "WebP).",
    "This JSON file is damaged, or longer than a recipe.": "Diese JSON-Datei ist beschädigt oder länger als ein "
    "Rezept.",
    "The picture is larger than {} MB.": "Das Bild ist größer als {} MB.",
    "The picture has more than {} million pixels.": "Das Bild hat mehr als {} Millionen Pixel.",
    "The settings in this picture have {} characters; at most {} are read.": "Die Einstellungen in diesem Bild haben "
    "{} Zeichen; höchstens {} werden gelesen.",
    "The settings in this picture have no size.": "Den Einstellungen in diesem Bild fehlt die Größe.",
    "The settings in this picture hold something that is not a number.": "In den Einstellungen dieses Bildes steht "
    "etwas, das keine Zahl ist.",
    "The recipe in this picture has {} characters; at most {} are read.": "Das Rezept in diesem Bild hat {} Zeichen; "
    "höchstens {} werden gelesen.",
    "The recipe in this picture was written by another version of the page.": "Das Rezept in diesem Bild stammt von "
    "einer anderen Version der Seite.",
    "The recipe in this picture must list at most {} adapters.": "Das Rezept in diesem Bild darf höchstens {} Adapter "
    "nennen.",
    "The recipe in this picture needs one of these blends: {}.": "Das Rezept in diesem Bild braucht eine dieser "
    "Mischungen: {}.",
    "The recipe in this picture needs a {} of at most {} characters.": "Das Rezept in diesem Bild braucht ein Feld {} "
    "von höchstens {} Zeichen.",
    "The recipe in this picture lists an adapter that cannot be read.": "Das Rezept in diesem Bild nennt einen "
    "Adapter, der nicht lesbar ist.",
    "The recipe in this picture names an adapter without a valid content hash.": "Das Rezept in diesem Bild nennt "
    "einen Adapter ohne gültige Prüfsumme.",
    "The recipe in this picture names more than {} blocks in one weight.": "Das Rezept in diesem Bild nennt mehr als "
    "{} Blöcke in einem Gewicht.",
    "The recipe in this picture needs weights from {} to {}.": "Das Rezept in diesem Bild braucht Gewichte von {} bis "
    "{}.",
    "The recipe in this picture needs a {} from {} to {}.": "Das Rezept in diesem Bild braucht ein Feld {} von {} bis "
    "{}.",
    "The recipe in this picture needs a whole number for {}.": "Das Rezept in diesem Bild braucht eine ganze Zahl für "
    "{}.",
    "The recipe in this picture is damaged: it is not valid JSON.": "Das Rezept in diesem Bild ist beschädigt: Es ist "
    "kein gültiges JSON.",
    "The recipe in this picture has a weight that cannot be read: {}": "Das Rezept in diesem Bild hat ein Gewicht, "
    "das nicht lesbar ist: {}",
    "The adapter '{}' (weight {}) is missing: {}": "Der Adapter '{}' (Gewicht {}) fehlt: {m}",
    "{} It is on at 1.": "{m} Er ist mit 1 an.",
    "no file with hash {} is in the folder": "Keine Datei mit der Prüfsumme {} ist im Ordner",
    "It used {}, which are no Lily adapters: they are left out.": "Es entstand mit {}, die keine Lily-Adapter sind: "
    "Sie "
    "fehlen.",
    "This page reads weights in brackets, such as (cat:1.2), as plain text.": "Gewichte in Klammern, etwa (cat:1.2), "
    "liest diese Seite als gewöhnlichen Text.",
    "It was made with the base model '{}'.": "Es entstand mit dem Basismodell '{}'.",
    "Its seed is larger than this page takes: another is set.": "Sein Seed ist größer, als diese Seite nimmt: Ein "
    "anderer "
    "ist eingestellt.",
    "Its styles {} are not here.": "Seine Stile {} sind nicht hier.",
    "It was made with {}, which this page has not.": "Es entstand mit {}; das hat diese Seite nicht.",
    "It was made with the base model '{}'; now '{}' is loaded.": "Es entstand mit dem Basismodell '{}'; jetzt ist "
    "'{}' geladen.",
    "This base model has no scheduler '{}': its own is set.": "Dieses Basismodell hat keinen Scheduler '{}': sein "
    "eigener ist eingestellt.",
    "{} by {} pixels do not fit this base model: {} by {} are set.": "{} mal {} Pixel passen nicht zu diesem "
    "Basismodell: {} mal {} sind eingestellt.",
}  # fmt: skip
