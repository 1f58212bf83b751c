package org.snu.ids.ha.ma;

import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/**
 * One call per document (or piece of one): UTF-16LE bytes in, morphemes and cuts out as bytes.
 *
 * <p>The four stages are those of konlpy's KkmaInterface.morphAnalyzer. Bytes cross the border because
 * a string converted by JPype costs more and breaks where Kkma cuts a surrogate pair in two; here the
 * two halves are joined again. Answer (little endian): int32 status, then
 * status 0: int32 tokens and int32 characters left uncut for their cost, int32 morphemes n, int32 cuts m,
 * int32[n] ends of the morphemes in their joined text, int32[m] cuts in the document (both in code
 * points), the joined morphemes in UTF-16LE; otherwise the message of what was thrown, in UTF-16LE.
 */
public final class DocumentAnalyzer {
    static final int DONE = 0;
    static final int FAILED = 1;
    static final int OUT_OF_MEMORY = 2;

    private static boolean loaded;

    private DocumentAnalyzer() {}

    /** Loads the dictionaries (once, before several threads analyse), without Kkma's messages. */
    public static synchronized void load() {
        PrintStream out = System.out;
        System.setOut(new PrintStream(new OutputStream() {
            @Override
            public void write(int b) {}
        }));
        try {
            byte[] answer = analyze(bytes("시작"), new Budget(2));
            if (answer[0] != DONE) {
                throw new IllegalStateException(new String(answer, 4, answer.length - 4, StandardCharsets.UTF_16LE));
            }
            if (!loaded && Boolean.getBoolean("kogpt.accelerated")) {
                Tables.release();
                System.gc(); // the heap shrinks to what stays
            }
            loaded = true;
        } finally {
            System.setOut(out);
        }
    }

    /** Analyses one piece of a document at the cost of the document's budget; never throws. */
    public static byte[] analyze(byte[] piece, Budget budget) {
        budget.open();
        try {
            String text = ByteBuffer.wrap(piece).order(ByteOrder.LITTLE_ENDIAN).asCharBuffer().toString();
            MorphemeAnalyzer analyzer = new MorphemeAnalyzer();
            List<MExpression> expressions = analyzer.analyze(text);
            expressions = analyzer.leaveJustBest(analyzer.postProcess(expressions));
            return encode(text, analyzer.divideToSentences(expressions), budget);
        } catch (OutOfMemoryError error) {
            return message(OUT_OF_MEMORY, error);
        } catch (Throwable error) {
            return message(FAILED, error);
        } finally {
            Budget.close();
        }
    }

    private static byte[] message(int status, Throwable error) {
        byte[] text = bytes(error.toString());
        return buffer(4 + text.length).putInt(status).put(text).array();
    }

    /** Unlike String.getBytes, leaves lone surrogates as they are. */
    private static byte[] bytes(String string) {
        ByteBuffer buffer = buffer(2 * string.length());
        buffer.asCharBuffer().put(string);
        return buffer.array();
    }

    private static ByteBuffer buffer(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static byte[] encode(String text, List<Sentence> sentences, Budget budget) {
        int shift = 0; // Kkma counts from the first character that trim() leaves
        while (shift < text.length() && text.charAt(shift) <= ' ') {
            shift++;
        }
        BitSet cuts = new BitSet(text.length());
        int[] ends = new int[text.length() + 16];
        int count = 0;
        StringBuilder joined = new StringBuilder(text.length() * 2);
        int points = 0;
        for (Sentence sentence : sentences) {
            for (Eojeol eojeol : sentence) {
                for (Morpheme morpheme : eojeol) {
                    String string = morpheme.string;
                    int start = morpheme.index + shift;
                    if (start > 0 && start < text.length()) {
                        cuts.set(start);
                    }
                    boolean half = count > 0 && !string.isEmpty() && joined.length() > 0
                            && Character.isLowSurrogate(string.charAt(0))
                            && Character.isHighSurrogate(joined.charAt(joined.length() - 1));
                    joined.append(string);
                    points += string.codePointCount(0, string.length()) - (half ? 1 : 0);
                    if (half) {
                        count--;
                    }
                    if (count == ends.length) {
                        ends = Arrays.copyOf(ends, 2 * count);
                    }
                    ends[count++] = points;
                }
            }
        }
        int[] header = {DONE, budget.tokens, budget.characters, count, cuts.cardinality()};
        return pack(header, ends, codePoints(text, cuts), joined);
    }

    /** The cuts as code point offsets; one inside a surrogate pair is dropped. */
    private static int[] codePoints(String text, BitSet cuts) {
        int[] offsets = new int[cuts.cardinality()];
        int count = 0;
        int pairs = 0;
        int seen = 0;
        for (int cut = cuts.nextSetBit(0); cut >= 0; cut = cuts.nextSetBit(cut + 1)) {
            for (; seen < cut; seen++) {
                if (isInsidePair(text, seen)) {
                    pairs++;
                }
            }
            if (!isInsidePair(text, cut)) {
                offsets[count++] = cut - pairs;
            }
        }
        return Arrays.copyOf(offsets, count);
    }

    private static boolean isInsidePair(String text, int index) {
        return index > 0
                && Character.isLowSurrogate(text.charAt(index))
                && Character.isHighSurrogate(text.charAt(index - 1));
    }

    private static byte[] pack(int[] header, int[] ends, int[] cuts, StringBuilder joined) {
        byte[] text = bytes(joined.toString());
        int count = header[3];
        header[4] = cuts.length;
        ByteBuffer answer = buffer(4 * (header.length + count + cuts.length) + text.length);
        answer.asIntBuffer().put(header).put(ends, 0, count).put(cuts);
        answer.position(answer.capacity() - text.length);
        return answer.put(text).array();
    }
}
