"""German for what the page says while it runs. ``{}`` stands for what changes, in the same order."""

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
    "{} · step {} of {}": "{} · Schritt {} von {}",
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
    "The base model does not read the end of this prompt: {}": "Das Basismodell liest das Ende des Prompts nicht: {}",
    "The safety checker of the base model blackened a picture.": "Die Sicherheitsprüfung des Basismodells hat ein "
    "Bild geschwärzt.",
    "{} on {}, {} safety checker.": "{} auf {}, {} Sicherheitsprüfung.",
    "with": "mit",
    "without": "ohne",
    "Base model: {}": "Basismodell: {}",
    "{} to {} of {} in use": "{} bis {} von {} benutzten",
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
    "The adapter '{}' cannot be used: {}": "Der Adapter '{}' ist nicht benutzbar: {}",
    "The adapter '{}' has a picture that was put there by hand; it stays.": "Der Adapter '{}' hat ein Bild, das von "
    "Hand dort liegt; es bleibt.",
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
    # settings
    "The {} must be a number from {} to {}.": "{}: eine Zahl von {} bis {} ist nötig.",
    "The {} must be a whole number.": "{}: eine ganze Zahl ist nötig.",
    "The {} must be a multiple of {} pixels for this base model.": "{}: dieses Basismodell braucht ein Vielfaches von "
    "{} Pixeln.",
    "The {} must be a text of at most {} characters.": "{}: höchstens {} Zeichen sind erlaubt.",
    "The {} needs a number.": "{}: eine Zahl ist nötig.",
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
    "Gewicht geben, oder die Mischung '{}' wählen.",
    "The weight of '{}' changes over the steps, which no file can hold. Give it one weight.": "Das Gewicht von '{}' "
    "ändert sich über die Schritte; das kann keine Datei. Bitte ein festes Gewicht geben.",
    "Every adapter needs a weight, such as 1 or 0.8.": "Jeder Adapter braucht ein Gewicht, etwa 1 oder 0.8.",
    "An adapter is chosen twice. Give it one weight in one row.": "Ein Adapter ist doppelt gewählt. Bitte ein Gewicht "
    "in einer Zeile geben.",
    # what is kept
    "Give it a name first.": "Bitte erst einen Namen geben.",
    "There are {} presets already. Delete some first.": "Es gibt schon {} Vorlagen. Bitte erst welche löschen.",
    "There is no preset of this name any more.": "Es gibt keine Vorlage dieses Namens mehr.",
    "The preset {} is damaged. {}": "Die Vorlage {} ist beschädigt. {}",
    "There are {} styles already. Delete some first.": "Es gibt schon {} Stile. Bitte erst welche löschen.",
    "The styles have become too long. Delete some first.": "Die Stile sind zu lang geworden. Bitte erst welche "
    "löschen.",
    "Write the style's prompt or negative prompt first.": "Bitte erst den Prompt oder den negativen Prompt des Stils "
    "schreiben.",
    "This picture is not there any more.": "Dieses Bild gibt es nicht mehr.",
    "This picture has no recipe in it. Pictures saved by this page have one.": "In diesem Bild ist kein Rezept. "
    "Bilder, die diese Seite gespeichert hat, haben eines.",
    "This picture has text in it, but no settings that can be read.": "In diesem Bild ist Text, aber keine lesbaren "
    "Einstellungen.",
    "This is not a PNG picture that can be read.": "Das ist kein lesbares PNG-Bild.",
    "This is not a PNG picture that can be read, nor JPEG or WebP.": "Das ist kein lesbares Bild (PNG, JPEG oder "
    "WebP).",
    "This JSON file is damaged, or longer than a recipe.": "Diese JSON-Datei ist beschädigt, oder länger als ein "
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
    "The adapter '{}' (weight {}) is missing: {}": "Der Adapter '{}' (Gewicht {}) fehlt: {}",
    "{} It is on at 1.": "{} Er ist mit 1 an.",
    "It was made with the base model '{}'; now '{}' is loaded.": "Es entstand mit dem Basismodell '{}'; jetzt ist "
    "'{}' geladen.",
    "This base model has no scheduler '{}': its own is set.": "Dieses Basismodell hat keinen Scheduler '{}': sein "
    "eigener ist eingestellt.",
    "{} by {} pixels do not fit this base model: {} by {} are set.": "{} mal {} Pixel passen nicht zu diesem "
    "Basismodell: {} mal {} sind eingestellt.",
    # judge
    "Choose an adapter first.": "Bitte erst einen Adapter wählen.",
    "Choose an adapter to compare with the base model.": "Bitte einen Adapter wählen, der mit dem Basismodell "
    "verglichen wird.",
    "Seed {}: the two pictures are the same. These adapters change nothing here.": "Seed {}: Die beiden Bilder sind "
    "gleich. Diese Adapter ändern hier nichts.",
    "Seed {}: on the left the base model alone, on the right with the adapters. The pictures differ by {} of the "
    "brightness range on average.": "Seed {}: links das Basismodell allein, rechts mit den Adaptern. Die Bilder "
    "unterscheiden sich im Mittel um {} des Helligkeitsumfangs.",
    "Choose what varies along X.": "Bitte wählen, was sich entlang X ändert.",
    "'{}' is on two axes. Choose another for one of them.": "'{}' liegt auf zwei Achsen. Bitte für eine etwas anderes "
    "wählen.",
    "This grid has {} pictures; at most {} are drawn. Take fewer values.": "Dieses Raster hat {} Bilder; höchstens {} "
    "werden gezeichnet. Bitte weniger Werte nehmen.",
    "{} pictures, each saved with its recipe, and the sheet with its legends.": "{} Bilder, jedes mit seinem Rezept "
    "gespeichert, und das Blatt mit seinen Beschriftungen.",
    "{} were not drawn.": "{} wurden nicht gezeichnet.",
    "There is no axis of that name. Choose one from the list.": "Es gibt keine Achse dieses Namens. Bitte eine aus "
    "der Liste wählen.",
    "The values of '{}' have {} characters; at most {} are read.": "Die Werte von '{}' haben {} Zeichen; höchstens {} "
    "werden gelesen.",
    "'{}' needs values, such as {}.": "'{}' braucht Werte, etwa {}.",
    "'{}' has {} values; at most {} are taken.": "'{}' hat {} Werte; höchstens {} werden genommen.",
    "A number is too large.": "Eine Zahl ist zu groß.",
    "Whole numbers are needed here, such as 1, 2 or 1-4.": "Hier sind ganze Zahlen nötig, etwa 1, 2 oder 1-4.",
    "The range '{}' must have from 2 to {} values.": "Der Bereich '{}' muss 2 bis {} Werte haben.",
    "The range '{}' has more than {} values.": "Der Bereich '{}' hat mehr als {} Werte.",
    "Say how many values the range '{}' has: {}:5 are five.": "Wie viele Werte hat der Bereich '{}'? {}:5 sind fünf.",
    "'{}' is no number. Write numbers such as 0.5, 1 or a range such as 0-1:5.": "'{}' ist keine Zahl. Bitte Zahlen "
    "wie 0.5, 1 oder einen Bereich wie 0-1:5 schreiben.",
    "The words cannot be read. Separate them by commas, and quote those that have one.": "Die Wörter sind nicht "
    "lesbar. Bitte durch Kommas trennen, und in Anführungszeichen setzen, was eines enthält.",
    "The seeds of a grid must be 0 or more.": "Die Seeds eines Rasters müssen 0 oder mehr sein.",
    "The prompt does not have '{}' in it, which is to be replaced.": "Im Prompt steht kein '{}', das ersetzt werden "
    "soll.",
    "An axis is about adapter {}, and {} is chosen.": "Eine Achse gilt für Adapter {}, gewählt: {}.",
    "This adapter has no block '{}'; it has {}.": "Dieser Adapter hat keinen Block '{}'; er hat {}.",
    "The adapter '{}' changes only the text encoder, which has no blocks to look at.": "Der Adapter '{}' ändert nur "
    "den Textencoder, der keine Blöcke hat.",
    "The adapter '{}' changes only the text encoder, whose routers are not shown.": "Der Adapter '{}' ändert nur den "
    "Textencoder, dessen Router nicht gezeigt werden.",
    "The adapter '{}' has the weight 0. Give it another one to look at its blocks.": "Der Adapter '{}' hat das "
    "Gewicht 0. Bitte ein anderes geben, um seine Blöcke anzusehen.",
    "The adapter '{}' has the weight 0. Give it another one to watch its routers.": "Der Adapter '{}' hat das Gewicht "
    "0. Bitte ein anderes geben, um seine Router zu beobachten.",
    "None of the adapter's layers took part in this picture. Its weight may be 0 everywhere.": "Keine Schicht des "
    "Adapters hatte Anteil an diesem Bild. Vielleicht ist sein Gewicht überall 0.",
    "Block {} matters most: without it the picture changes by {} of the brightness range.": "Block {} zählt am "
    "meisten: Ohne ihn ändert sich das Bild um {} des Helligkeitsumfangs.",
    "Block {} matters most: without it the picture changes by {} of the brightness range. {} could be left out with "
    "little change.": "Block {} zählt am meisten: Ohne ihn ändert sich das Bild um {} des Helligkeitsumfangs. {} "
    "könnten fast ohne Folgen wegbleiben.",
    "No block makes a difference to this picture so far.": "Kein Block macht bei diesem Bild bisher einen "
    "Unterschied.",
    "The routing of '{}' is static: the same mixture of experts answers at every step of every picture.":
    "Das Routing von '{}' ist fest: Dieselbe Mischung der Experten antwortet bei jedem Schritt jedes Bildes.",
    "The routers hardly choose: they are {} decided on average, where 0% means that all {} experts count equally. One "
    "fixed mixture would draw nearly the same picture.": "Die Router wählen kaum: Sie sind im Mittel zu {} "
    "entschieden; 0% heißt, dass alle {} Experten gleich zählen. Eine feste Mischung zeichnete fast dasselbe Bild.",
    "The routers are {} decided on average (0%: all {} experts count equally, 100%: one does everything). Most "
    "decided is {}, where expert {} has {} of the say. In {} of {} layers another expert leads at the last step than "
    "at the first.": "Die Router sind im Mittel zu {} entschieden (0%: alle {} Experten zählen gleich, 100%: einer "
    "tut alles). Am entschiedensten ist {}, wo Experte {} zu {} bestimmt. In {} von {} Schichten führt beim letzten "
    "Schritt ein anderer Experte als beim ersten.",
    "The routers are {} decided on average (0%: all {} experts count equally, 100%: one does everything). Most "
    "decided is {}, where expert {} has {} of the say. In none of the {} layers the leading expert changes from the "
    "first step to the last.": "Die Router sind im Mittel zu {} entschieden (0%: alle {} Experten zählen gleich, "
    "100%: einer tut alles). Am entschiedensten ist {}, wo Experte {} zu {} bestimmt. In keiner der {} Schichten "
    "wechselt der führende Experte vom ersten Schritt zum letzten.",
    # export
    "The rank needs a number; 0 leaves it as it is.": "Der Rang braucht eine Zahl; 0 lässt ihn, wie er ist.",
    "The rank must be a whole number from 0 (as it is) to {}.": "Der Rang muss eine ganze Zahl von 0 (wie er ist) bis "
    "{} sein.",
    "Choose one of the formats in the list.": "Bitte eines der Formate der Liste wählen.",
    "Choose the adapter or the blend that is to be written.": "Bitte den Adapter oder die Mischung wählen, die "
    "geschrieben wird.",
    "Give at least one prompt, with the trigger words in it, to watch the routers on.": "Bitte wenigstens einen "
    "Prompt mit den Auslösewörtern geben, bei dem die Router beobachtet werden.",
    "Give at most {} prompts, each of at most {} characters.": "Bitte höchstens {} Prompts geben, jeden von höchstens "
    "{} Zeichen.",
    "Written: {}.safetensors": "Geschrieben: {}.safetensors",
    "On {}, the baked pictures are {} of the brightness range away from the adapters' own, where the base model's are "
    "{} away.": "{}: Die eingebackenen Bilder sind {} des Helligkeitsumfangs von denen der Adapter entfernt, die des "
    "Basismodells {}.",
    "the same prompts with other seeds": "Dieselben Prompts mit anderen Seeds",
    "prompts that it was not baked on": "Prompts, auf denen nicht eingebacken wurde",
    "There the relative error of the updates is {}, as a mean over layers.": "Der relative Fehler der Änderungen ist "
    "dort {}, gemittelt über die Schichten.",
    "The smaller rank costs a layer's update at most {}.": "Der kleinere Rang kostet die Änderung einer Schicht "
    "höchstens {}.",
    "The file has the sum of the adapters; '{}' is for pictures on this page.": "Die Datei hat die Summe der Adapter; "
    "'{}' gilt für Bilder auf dieser Seite.",
    # train
    "It stops after this step and saves.": "Es hält nach diesem Schritt an und sichert.",
    "Getting ready: the base model and the pictures are read.": "Bereitet vor: Basismodell und Bilder werden gelesen.",
    "Training · step {} of {} · loss {} · {} left": "Training · Schritt {} von {} · Loss {} · noch {}",
    "Training · step {} of {} · loss {}": "Training · Schritt {} von {} · Loss {}",
    "Training": "Training",
    "Done": "Fertig",
    "Stopped": "Angehalten",
    "In the list of adapters as {}.": "In der Liste der Adapter als {}.",
    "It can go on where it stopped.": "Es kann weitergehen, wo es anhielt.",
    "The training ended before its first step. Its log says more: log.txt in the folder of the run.":
    "Das Training endete vor dem ersten Schritt. Sein Protokoll sagt mehr: log.txt im Ordner des Laufs.",
    "{} is left out: {}": "{} ist ausgelassen: {}",
    "the file is larger than {} MB.": "Die Datei ist größer als {} MB.",
    "it has more than {} million pixels.": "Es hat mehr als {} Millionen Pixel.",
    "it is no picture that can be read.": "Es ist kein lesbares Bild.",
    "Pictures {} and {} look alike: one of them may be enough.": "Die Bilder {} und {} gleichen sich: Vielleicht "
    "genügt eines.",
    "Smaller than {} pixels: {}.": "Kleiner als {} Pixel: {}.",
    "Every picture needs a caption.": "Jedes Bild braucht eine Beschreibung.",
    "Every picture needs a caption of at most {} characters.": "Jedes Bild braucht eine Beschreibung von höchstens {} "
    "Zeichen.",
    "This folder of pictures is not there any more.": "Diesen Ordner mit Bildern gibt es nicht mehr.",
    "Training takes 1 to {} pictures; these are {}.": "Training nimmt 1 bis {} Bilder; dies sind {}.",
    "None of these files is a picture that can be read (PNG, JPEG, WebP or BMP).": "Keine dieser Dateien ist ein "
    "lesbares Bild (PNG, JPEG, WebP oder BMP).",
    "Choose the pictures again: they are not kept any more.": "Bitte die Bilder noch einmal wählen: Sie sind nicht "
    "mehr da.",
    "Steps, rank and seed are whole numbers, the resolution a multiple of {}.": "Schritte, Rang und Seed sind ganze "
    "Zahlen, die Auflösung ein Vielfaches von {}.",
    "Give the subject a rare word and a class, each of at most {} characters.": "Bitte dem Motiv ein seltenes Wort "
    "und eine Klasse geben, je höchstens {} Zeichen.",
    "A training is running already. Stop it first, or wait until it is done.": "Es läuft schon ein Training. Bitte "
    "erst anhalten, oder warten, bis es fertig ist.",
    "This training has saved nothing yet.": "Dieses Training hat noch nichts gesichert.",
    "There is no such training.": "Es gibt kein solches Training.",
    "This training is finished.": "Dieses Training ist fertig.",
    "The notes of this training are damaged.": "Die Aufzeichnungen dieses Trainings sind beschädigt.",
}  # fmt: skip
