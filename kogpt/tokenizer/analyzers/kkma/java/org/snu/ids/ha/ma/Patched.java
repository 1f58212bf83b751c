package org.snu.ids.ha.ma;

import java.lang.invoke.MethodHandles;

/** Takes Kkma's changed classes from memory, so that no file that somebody else could write is on the class path. */
public final class Patched {
    private Patched() {}

    /** Defines a class of this package from the bytes of its file; a LinkageError if it was loaded before. */
    public static void define(byte[] content) throws IllegalAccessException {
        MethodHandles.lookup().defineClass(content);
    }
}
