package org.snu.ids.ha.ma;

import java.lang.invoke.MethodHandles;

/** Defines Kkma's changed classes from memory, so that the class path needs no folder that others can write to. */
public final class Patched {
    private Patched() {}

    /** Defines a class of this package from the bytes of its file. LinkageError if it is already loaded. */
    public static void define(byte[] content) throws IllegalAccessException {
        MethodHandles.lookup().defineClass(content);
    }
}
