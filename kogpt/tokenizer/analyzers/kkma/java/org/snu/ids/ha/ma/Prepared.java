package org.snu.ids.ha.ma;

import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import org.snu.ids.ha.dic.Dictionary;

/** Kkma's dictionaries as arrays: read from bytes, or made by Kkma from its texts, which takes 100 times as long. */
final class Prepared {
    private Prepared() {}

    /** Takes the arrays from what `bytes` returned. */
    static void read(ByteBuffer content) {
        pass(ArrayFile.reading(content));
    }

    /** The arrays as bytes, the same in every process. */
    static byte[] bytes() {
        ArrayFile file = ArrayFile.writing();
        pass(file);
        return file.written();
    }

    private static void pass(ArrayFile file) {
        Tables.pass(file);
        Lexicon.pass(file);
    }

    /** Lets Kkma load its dictionaries, makes the arrays, and releases Kkma's own. */
    static void collect() throws ReflectiveOperationException {
        List<Map<?, ?>> sources = Tables.collect(); // first, because Kkma's dictionary asks Tables, too, while it loads
        Field field = Dictionary.class.getDeclaredField("table");
        field.setAccessible(true);
        @SuppressWarnings("unchecked")
        Map<String, MExpression> table = (Map<String, MExpression>) field.get(Dictionary.getInstance());
        LexiconMaker.make(table);
        Dictionary.getInstance().clear();
        for (Map<?, ?> source : sources) {
            source.clear();
        }
    }
}
