"""German for what the tabs Judge, Export and Train say while they work; see `ui.german_messages`."""

GERMAN_RESULTS = {
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
    "'{}' sets the same weight as another axis. Choose one of them.": "'{}' setzt dasselbe Gewicht wie eine andere "
    "Achse. Bitte eine davon wählen.",
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
    "lesbar. Bitte durch Kommas trennen und in Anführungszeichen setzen, was eines enthält.",
    "The seeds of a grid must be 0 or more.": "Die Seeds eines Rasters müssen 0 oder mehr sein.",
    "The prompt does not have '{}' in it, which is to be replaced.": "Im Prompt steht kein '{}', das ersetzt werden "
    "soll.",
    "An axis is about adapter {}, and {} is chosen.": "Eine Achse gilt für Adapter {}, gewählt: {m}.",
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
    "The routing of '{}' is static: the same mixture of experts answers at every step of every prompt, so there is "
    "nothing to watch.": "Das Routing von '{}' ist fest: Dieselbe Mischung der Experten antwortet bei jedem Schritt "
    "jedes "
    "Prompts; es gibt nichts zu beobachten.",
    "none": "keiner",
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
    "{} away.": "{m}: Die eingebackenen Bilder sind {} des Helligkeitsumfangs von denen der Adapter entfernt, die des "
    "Basismodells {}.",
    "the same prompts with other seeds": "Dieselben Prompts mit anderen Seeds",
    "prompts that it was not baked on": "Prompts, auf denen nicht eingebacken wurde",
    "There the relative error of the updates is {}, as a mean over layers.": "Der relative Fehler der Änderungen ist "
    "dort {}, gemittelt über die Schichten.",
    "The routing was static already, so nothing is lost by baking.": "Das Routing war schon fest, das Einbacken kostet "
    "nichts.",
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
    "{} is left out: {}": "{} ist ausgelassen: {m}",
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
    "erst anhalten oder warten, bis es fertig ist.",
    "This training has saved nothing yet.": "Dieses Training hat noch nichts gesichert.",
    "Training is off while the page listens to other machines. Start it with --allow_training to switch it on.":
    "Training ist aus, solange andere Rechner die Seite erreichen. Mit --allow_training gestartet, ist es an.",
    "There is no such training.": "Es gibt kein solches Training.",
    "This training is finished.": "Dieses Training ist fertig.",
    "The notes of this training are damaged.": "Die Aufzeichnungen dieses Trainings sind beschädigt.",
}  # fmt: skip
